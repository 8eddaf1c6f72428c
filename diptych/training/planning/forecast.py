"""The memory that a run is going to need, counted before any time is spent.

Every tensor that autograd keeps in a small real forward pass is counted once, and scaled to the batch.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diptych.data.batch import Batch
from diptych.data.example import Example
from diptych.data.images.augmentations import random_table
from diptych.data.images.canvas import canvas_for
from diptych.data.images.decoding import Pixels
from diptych.data.images.transforms import Preprocess
from diptych.data.loader import batches_ahead
from diptych.errors import SettingsError
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.models.layers.blocks import set_recompute
from diptych.training.approaches.contrastive import is_tiled
from diptych.training.settings import Recipe
from diptych.training.towers import Chunking

PROBES = (2, 4)  # rows of the two forward passes from which memory is extrapolated
USABLE = 0.8  # of the free memory: allocators waste some, kernels use some in passing
_LARGEST_CHUNK = 1024  # rows; larger ones are no faster
_SMALLEST_CHUNK = 16


@dataclass(frozen=True)
class Kept:
    """Bytes that autograd keeps between the forward and the backward pass.

    image, text: of one row. once: whatever the batch, such as casts of the weights.
    image_block, text_block: of one row, what the backward pass of one block needs besides, the most for a tower.
    """

    image: int
    text: int
    once: int
    image_block: int = 0
    text_block: int = 0


@dataclass(frozen=True)
class Memory:
    """Bytes at the fullest moment of a step.

    weights to loss are where the model is; batches and cache in the machine's own memory, which on a CPU is the same.
    chunk: rows of one forward pass; None is the whole batch. keep: chunks of each side whose graphs are kept.
    """

    weights: int
    gradients: int
    moments: int
    average: int
    activations: int
    loss: int
    batches: int
    cache: int
    chunk: int | None
    keep: int = 0

    @property
    def on_device(self) -> int:
        return self.weights + self.gradients + self.moments + self.average + self.activations + self.loss

    @property
    def on_host(self) -> int:
        return self.batches + self.cache


def blank_model(recipe: Recipe, device: str) -> ImageModel:
    """Return the recipe's model with zeros for weights: drawing them takes seconds, and no figure needs them."""
    with torch.device("meta"):
        model = build_model(recipe.model.resolve())
    model.to_empty(device=device).train()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.detach().zero_()
    model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def kept_bytes(model: ImageModel, recipe: Recipe) -> Kept:
    """Return what a pair keeps for the backward pass, texts at their full length.

    The backward pass begins with all that was kept, and adds gradients of the inside of the last block: for the
    MLP of a transformer, about half of what the block keeps. Where insides are computed again, one of them is
    there besides.
    """
    set_recompute(model, False)
    kept = _lines(model, recipe)
    image_block, text_block = (
        bytes_ // max(1, 2 * len(getattr(tower, "blocks", ())))
        for bytes_, tower in ((kept.image, model.visual), (kept.text, model.text))
    )
    if recipe.training.recompute:
        set_recompute(model, True)
        kept = _lines(model, recipe)
        image_block, text_block = 3 * image_block, 3 * text_block
    return replace(kept, image_block=image_block, text_block=text_block)


def _lines(model: ImageModel, recipe: Recipe) -> Kept:
    """Fit straight lines to two small batches: what is kept once, however large the batch, is their offset."""
    task = recipe.make_task(model, Preprocess(model.architecture.image.resolution))
    few, more = PROBES

    def line(encode: Callable[[Batch, Tensor], Tensor]) -> tuple[int, int]:
        first, second = (
            saved_bytes(model, lambda batch=batch: encode(batch, batch.rows))  # type: ignore[misc]
            for batch in (blank_batch(recipe, model, few), blank_batch(recipe, model, more))
        )
        slope = (second - first) // (more - few)
        return slope, max(0, first - few * slope)

    image, image_once = line(task.image)
    text, text_once = line(task.text)
    return Kept(image, text, image_once + text_once)


def saved_bytes(model: ImageModel, run: Callable[[], Tensor]) -> int:
    """Count the bytes of every storage that autograd saves while `run` runs, each once, without the weights."""
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that its address is not given away again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    del result
    return sum(storage.nbytes() for address, storage in kept.items() if address not in weights)


def memory_of(recipe: Recipe, model: ImageModel, kept: Kept, free: int, cached_rows: int = 0) -> Memory:
    """Return the memory of a training step of `recipe`, in one process.

    free: bytes that chunk = "auto" may use. cached_rows: pairs whose images are kept decoded.
    """
    training = recipe.training
    parameters = sum(parameter.numel() for parameter in model.parameters())
    canvas = blank_canvas(recipe).nbytes
    batch = training.batch_size
    whole = Memory(
        weights=4 * parameters,
        gradients=4 * parameters,
        moments=recipe.optimizer.state_bytes * parameters,
        average=0 if training.ema is None else 4 * parameters,
        activations=kept.once + batch * (kept.image + kept.text + max(kept.image_block, kept.text_block)),
        # Embeddings of both sides and their gradients; logits, their softmax and its gradient while they are whole.
        loss=16 * batch * model.architecture.embed_dim + (0 if is_tiled(batch) else 12 * batch * batch),
        # The one that is computed with, and those that are read meanwhile.
        batches=(1 + batches_ahead(batch)) * batch * (canvas + 4 * model.context_length),
        cache=cached_rows * canvas,
        chunk=None,
    )
    if isinstance(training.chunk, int):
        text = training.text_chunk if training.text_chunk is not None else training.chunk
        return _chunked(whole, kept, training.chunk, text, training.keep)
    if training.chunk is None or _fits(whole, free):
        return whole
    return fitting(whole, kept, free)


def fitting(whole: Memory, kept: Kept, free: int) -> Memory:
    """Return the largest chunk, a power of two from 16 to 1,024, that fits into `free` bytes; 16 where none does.

    What is left holds the graphs of as many chunks as fit.
    """
    size = _LARGEST_CHUNK
    while size > _SMALLEST_CHUNK and not _fits(_chunked(whole, kept, size, size, 0), free):
        size //= 2
    found = _chunked(whole, kept, size, size, 0)
    spare = int(USABLE * free) - found.on_device - found.on_host
    return _chunked(whole, kept, size, size, max(0, spare // (size * (kept.image + kept.text))))


def fitting_chunks(recipe: Recipe, model: ImageModel, rows: int, device: str) -> Chunking:
    """Return what `chunk = "auto"` means: how a process passes its `rows` rows through `model` in the free memory.

    A few rows are passed through the model; it is left as it was. Raises SettingsError where not even 16 rows fit, or
    the system does not say how much memory is free.
    """
    free = free_memory(device)
    if free is None:
        raise SettingsError(
            "[training] chunk = 'auto': this system does not say how much memory is free; give a number"
        )
    buffers = [buffer.clone() for buffer in model.buffers()]
    kept = kept_bytes(model, recipe)
    with torch.no_grad():
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
    share = replace(recipe, training=replace(recipe.training, batch_size=max(2, rows)))
    found = memory_of(share, model, kept, free)
    if not _fits(found, free):
        raise SettingsError(
            f"[training] chunk = 'auto': a step of {rows:,} rows in chunks of {found.chunk} needs "
            f"{(found.on_device + found.on_host) / 2**30:.1f} GiB, and {USABLE * free / 2**30:.1f} GiB are free; set "
            "recompute = true or precision = 'bfloat16', or train a smaller model or batch"
        )
    return Chunking(found.chunk, found.chunk, found.keep)


def _fits(memory: Memory, free: int) -> bool:
    return memory.on_device + memory.on_host <= USABLE * free


def blank_canvas(recipe: Recipe) -> Pixels:
    """Return a blank image as the loader hands it over: (channels, side, side), uint8."""
    resolution = recipe.model.resolve().image.resolution
    file = io.BytesIO()
    Image.new("RGB", (resolution, resolution)).save(file, "png")
    canvas = canvas_for(recipe.augmentation, Preprocess(resolution))
    return canvas.crop(canvas.decode(Example("blank", file.getvalue())), np.zeros(2))


def blank_batch(recipe: Recipe, model: ImageModel, rows: int) -> Batch:
    """Return a batch of blank images and texts of the full length."""
    tokens = torch.zeros(rows, model.context_length, dtype=torch.long)
    tokens[:, -1] = model.vocab_size - 1  # the end token
    canvas = torch.from_numpy(blank_canvas(recipe)).expand(rows, -1, -1, -1)
    return made_up_batch(canvas, tokens, model.device, silence(model, rows))


def silence(model: ImageModel, rows: int) -> Tensor | None:
    """Return silent sounds, (rows, frames, bands), for a model that hears."""
    encoder = model.sound_encoder
    return None if encoder is None else torch.zeros(rows, encoder.sound_frames, encoder.sound_bands)


def made_up_batch(
    canvas: Tensor, tokens: Tensor, device: torch.device, sounds: Tensor | None = None
) -> Batch:
    """Return a batch of canvases (rows, channels, side, side) and their texts' tokens (rows, context), on a device.

    sounds: (rows, frames, bands), where there are any.
    """
    rows = torch.arange(len(canvas), device=device)
    return Batch(
        canvas=canvas.to(device),
        tokens=tokens.to(device),
        groups=rows,
        mirrored=torch.zeros(len(rows), dtype=torch.bool, device=device),
        chance=random_table(0, len(rows)).to(device),
        position=0,
        rows=rows,
        seeds=rows,
        first=0,
        global_count=len(rows),
        sounds=None if sounds is None else sounds.to(device),
    )


def free_memory(device: str) -> int | None:
    """Return the free bytes of a device: of a GPU's memory, or of the machine's; None where it does not say."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            named = dict(line.split(":", 1) for line in lines)
        free = 1024 * int(named["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
    return min(free, _free_in_container(free))


def _chunked(whole: Memory, kept: Kept, image: int, text: int, keep: int) -> Memory:
    # One chunk of one side at a time, beside the pairs of chunks whose graphs are kept.
    pair = image * kept.image + text * kept.text
    at_once = keep * pair + max(image * (kept.image + kept.image_block), text * (kept.text + kept.text_block))
    return replace(whole, activations=min(whole.activations, kept.once + at_once), chunk=image, keep=keep)


def _free_in_container(otherwise: int) -> int:
    """Return what a container's limit (control groups, version 2) leaves; `otherwise` where there is no limit."""
    group = Path("/sys/fs/cgroup")
    try:
        most = int((group / "memory.max").read_text("ascii"))  # without a limit it says "max"
        used = int((group / "memory.current").read_text("ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
    except (OSError, ValueError):
        return otherwise
    # Files that were read and may be forgotten count as used.
    return max(0, most - used + int(stat.get("inactive_file", 0)))
