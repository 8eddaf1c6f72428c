"""What a run is going to need, measured on a few rows before any time is spent.

Memory is counted: every tensor that autograd keeps in a small real forward pass, scaled to the batch. Time is an
estimate: a few real steps on a few rows, and the reading of as many pairs, as fast as the machine is at that moment.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.data.augmentations import Drawings, draw_views, random_table
from diptych.data.canvas import canvas_for
from diptych.data.sources import Source
from diptych.data.transforms import Preprocess
from diptych.errors import DataError, SettingsError
from diptych.models.blocks import set_recompute
from diptych.models.clip import CLIP, build_model
from diptych.models.vision_transformer import VisionTransformer
from diptych.tokenizer import tokenize
from diptych.training.precision import autocast
from diptych.training.settings import Recipe, TrainingSettings
from diptych.training.towers import Chunking

PROBES = (2, 4)  # rows of the two forward passes from which memory is extrapolated
USABLE = 0.8  # of the free memory: allocators waste some, kernels use some in passing
_LARGEST_CHUNK = 1024  # rows; larger ones are no faster
_SMALLEST_CHUNK = 16
# Batches in memory, the one that is computed with included; fewer from some thousand rows on.
_AT_HAND, _LARGE, _AT_HAND_WHERE_LARGE = 4, 4096, 2
_TILED_FROM = 2048  # rows from which the matrix of similarities is never whole
# Timed steps: rows of the first and of the largest; more rows are tried while a step is quick, and in any case until
# the steps were large or took long together, for what a step takes besides its rows would pass for theirs.
_TIMED_ROWS, _LARGE_ENOUGH = (2, 64), 16
_QUICK_SECONDS, _LONG_SECONDS = 1.5, 20.0


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


@dataclass(frozen=True)
class Pace:
    """Seconds that a pair takes, and that a step takes besides.

    forward: one pass without a graph. training: forward and backward. reading: from the disk to pixels, in one thread.
    update: of a step, however many pairs it has.
    """

    forward: float
    training: float
    reading: float
    update: float


def blank_model(recipe: Recipe, device: str) -> CLIP:
    """The recipe's model as it trains, with zeros for weights: drawing them takes seconds, and no figure needs them."""
    with torch.device("meta"):
        model = build_model(recipe.model.resolve())
    model.to_empty(device=device).train()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.detach().zero_()
    model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def kept_bytes(model: CLIP, training: TrainingSettings) -> Kept:
    """What a pair keeps for the backward pass, texts at their full length.

    The backward pass begins with all that was kept, and adds gradients of the inside of the last block: for the
    perceptron of a transformer, about half of what the block keeps. Where insides are computed again, one of them is
    there besides.
    """
    set_recompute(model, False)
    kept = _lines(model, training)
    image_block, text_block = (
        bytes_ // max(1, 2 * len(tower.blocks))
        for bytes_, tower in ((kept.image, model.visual), (kept.text, model.text))
    )
    if training.recompute:
        set_recompute(model, True)
        kept = _lines(model, training)
        image_block, text_block = 3 * image_block, 3 * text_block
    return replace(kept, image_block=image_block, text_block=text_block)


def _lines(model: CLIP, training: TrainingSettings) -> Kept:
    """Straight lines through two small batches: what is kept once, however large the batch, is their offset."""
    few, more = PROBES

    def line(run: Callable[[int], Tensor]) -> tuple[int, int]:
        first, second = saved_bytes(model, lambda: run(few)), saved_bytes(model, lambda: run(more))
        slope = (second - first) // (more - few)
        return slope, max(0, first - few * slope)

    with autocast(model.logit_scale.device.type, training.precision):
        image, image_once = line(lambda rows: _encode_image(model, blank_pixels(model, rows), training))
        text, text_once = line(lambda rows: model.encode_text(_longest_tokens(model, rows)))
    return Kept(image, text, image_once + text_once)


def saved_bytes(model: CLIP, run: Callable[[], Tensor]) -> int:
    """Bytes of every storage that autograd saves while `run` runs, each once, weights left out."""
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


def memory_of(recipe: Recipe, model: CLIP, kept: Kept, free: int, cached_rows: int = 0) -> Memory:
    """The memory of a training step of `recipe`, in one process.

    free: bytes that chunk = "auto" may use. cached_rows: pairs whose pictures are kept decoded.
    """
    training = recipe.training
    parameters = sum(parameter.numel() for parameter in model.parameters())
    moment = 2 if recipe.optimizer.moments == "bfloat16" else 4
    preprocess = Preprocess(model.architecture.image.resolution)
    canvas = canvas_bytes(recipe, preprocess)
    batch = training.batch_size
    whole = Memory(
        weights=4 * parameters,
        gradients=4 * parameters,
        moments=2 * moment * parameters,
        average=0 if training.ema is None else 4 * parameters,
        activations=kept.once + batch * (kept.image + kept.text + max(kept.image_block, kept.text_block)),
        # Embeddings of both sides and their gradients; logits, their softmax and its gradient while they are whole.
        loss=16 * batch * model.architecture.embed_dim + (12 * batch * batch if batch < _TILED_FROM else 0),
        batches=(_AT_HAND if batch <= _LARGE else _AT_HAND_WHERE_LARGE)
        * batch
        * (canvas + 4 * model.context_length),
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
    """The largest chunk, a power of two from 16 to 1,024, with which a step fits into `free` bytes; 16 where none.

    What is left holds the graphs of as many chunks as fit.
    """
    size = _LARGEST_CHUNK
    while size > _SMALLEST_CHUNK and not _fits(_chunked(whole, kept, size, size, 0), free):
        size //= 2
    found = _chunked(whole, kept, size, size, 0)
    spare = int(USABLE * free) - found.on_device - found.on_host
    return _chunked(whole, kept, size, size, max(0, spare // (size * (kept.image + kept.text))))


def fitting_chunks(recipe: Recipe, model: CLIP, rows: int, device: str) -> Chunking:
    """What `chunk = "auto"` stands for: how a process passes its `rows` rows through `model` in the memory there is.

    A few rows are passed through the model; it is left as it was. Raises SettingsError where not even 16 rows fit, or
    the system does not say how much memory is free.
    """
    free = free_memory(device)
    if free is None:
        raise SettingsError(
            "[training] chunk = 'auto': this system does not say how much memory is free; give a number"
        )
    buffers = [buffer.clone() for buffer in model.buffers()]
    kept = kept_bytes(model, recipe.training)
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


def canvas_bytes(recipe: Recipe, preprocess: Preprocess) -> int:
    """Bytes of a picture as the loader hands it over: one byte a channel and pixel."""
    if isinstance(recipe.augmentation, Drawings):
        return 4 * math.ceil(1.125 * preprocess.resolution) ** 2
    return 3 * preprocess.resolution**2


def free_memory(device: str) -> int | None:
    """Bytes that can be had on a device now: of a GPU's memory, or of the machine's; None where it does not say."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            named = dict(line.split(":", 1) for line in lines)
        free = 1024 * int(named["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
    return min(free, _free_in_container(free))


def measure_pace(
    recipe: Recipe, model: CLIP, source: Source, positions: Sequence[int], device: str
) -> tuple[Pace, int]:
    """Real steps on pairs of the data, more pairs each time until a step takes a while; and the most pairs of one.

    positions: of pairs of the source, of which at most 64 are read.
    Raises DataError where no pair among them can be read.
    """
    preprocess = Preprocess(model.architecture.image.resolution)
    few, most = _TIMED_ROWS
    most = min(most, recipe.training.batch_size)
    canvas, tokens, reading = _read(recipe, preprocess, source, positions[:most], model.context_length)
    set_recompute(model, recipe.training.recompute)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    rows = min(few, len(canvas))
    _timed_step(recipe, model, optimizer, canvas[:rows], tokens[:rows])  # allocates, and warms up
    smaller, (forward, both, update) = (
        rows,
        _timed_step(recipe, model, optimizer, canvas[:rows], tokens[:rows]),
    )
    forward_once = both_once = 0.0
    started = time.perf_counter()
    while rows < len(canvas) and (
        both < _QUICK_SECONDS
        or (rows < _LARGE_ENOUGH and time.perf_counter() - started + 2 * both < _LONG_SECONDS)
    ):
        smaller, rows = rows, min(2 * rows, len(canvas))
        before, (forward, both, update) = (
            (forward, both),
            _timed_step(recipe, model, optimizer, canvas[:rows], tokens[:rows]),
        )
        forward_once = _once(smaller, before[0], rows, forward)
        both_once = _once(smaller, before[1], rows, both)
    model.zero_grad(set_to_none=True)
    pace = Pace(
        forward=(forward - forward_once) / rows,
        training=(both - both_once) / rows,
        reading=reading,
        update=both_once + update,
    )
    return pace, rows


def _once(few: int, few_seconds: float, more: int, more_seconds: float) -> float:
    """Seconds that a step takes however many rows it has, such as for the gradient of an embedding.

    The offset of the straight line through two steps, at most half of the longer one: a noisy clock must not make
    rows free.
    """
    slope = (more_seconds - few_seconds) / (more - few)
    return min(max(0.0, more_seconds - more * slope), more_seconds / 2)


def _timed_step(
    recipe: Recipe, model: CLIP, optimizer: torch.optim.Optimizer, canvas: Tensor, tokens: Tensor
) -> tuple[float, float, float]:
    """Seconds of a forward pass without a graph, of one with its backward pass, and of the update."""
    device = model.logit_scale.device
    training = recipe.training

    def encode() -> tuple[Tensor, Tensor]:
        with autocast(model.logit_scale.device.type, training.precision):
            views = _views(recipe, model.architecture.image.resolution, canvas.to(device))
            return _encode_image(model, views, training), model.encode_text(tokens.to(device))

    optimizer.zero_grad(set_to_none=True)
    started = _now(device)
    with torch.no_grad():
        encode()
    forward = _now(device)
    image, text = encode()
    logits = model.logit_scale.exp() * F.normalize(image.float()) @ F.normalize(text.float()).T
    F.cross_entropy(logits, torch.arange(len(logits), device=device)).backward()  # type: ignore[no-untyped-call]
    both = _now(device)
    optimizer.step()
    return forward - started, both - forward, _now(device) - both


def seconds_a_step(
    pace: Pace, recipe: Recipe, memory: Memory, device: str, read_share: float
) -> tuple[float, float]:
    """Seconds of computing and of reading in a step. read_share: of the pairs that are not in the cache, 0..1.

    With chunks, a pair whose graph is not kept is computed forward once more. On a CPU the two share the processors
    and add up; beside a GPU the longer one decides.
    """
    training = recipe.training
    batch = training.batch_size
    again = 0 if memory.chunk is None else max(0, batch - memory.keep * memory.chunk)
    computing = batch * pace.training + again * pace.forward + pace.update
    processors = os.cpu_count() or 1
    threads = processors if device == "cpu" else min(processors, max(1, recipe.data.workers))
    return computing, read_share * batch * pace.reading / threads


def blank_pixels(model: CLIP, rows: int) -> Tensor:
    """Pictures of nothing, (rows, 3, n, n)."""
    side = model.architecture.image.resolution
    return torch.zeros(rows, 3, side, side, device=model.logit_scale.device)


def _chunked(whole: Memory, kept: Kept, image: int, text: int, keep: int) -> Memory:
    # One chunk of one side at a time, beside the pairs of chunks whose graphs are kept.
    pair = image * kept.image + text * kept.text
    at_once = keep * pair + max(image * (kept.image + kept.image_block), text * (kept.text + kept.text_block))
    return replace(whole, activations=min(whole.activations, kept.once + at_once), chunk=image, keep=keep)


def _encode_image(model: CLIP, pixels: Tensor, training: TrainingSettings) -> Tensor:
    if not training.patch_dropout or not isinstance(model.visual, VisionTransformer):
        return model.encode_image(pixels)
    patches = len(model.visual.positional_embedding) - 1
    kept = max(1, round(patches * (1 - training.patch_dropout)))
    return model.encode_image(pixels, torch.arange(kept, device=pixels.device).expand(len(pixels), -1))


def _longest_tokens(model: CLIP, rows: int) -> Tensor:
    tokens = torch.zeros(rows, model.context_length, dtype=torch.long, device=model.logit_scale.device)
    tokens[:, -1] = model.vocab_size - 1  # the end token
    return tokens


def _read(
    recipe: Recipe, preprocess: Preprocess, source: Source, positions: Sequence[int], context: int
) -> tuple[Tensor, Tensor, float]:
    """Canvases, tokens, and the seconds that a pair took."""
    canvas = canvas_for(recipe.augmentation, preprocess)
    chance = random_table(0, len(positions)).numpy()[:, :2]
    pictures, captions = [], []
    started = time.perf_counter()
    for position, numbers in zip(positions, chance, strict=True):
        try:
            example = source[position]
            pixels = canvas.crop(canvas.decode(example), numbers)
        except (DataError, OSError):
            continue
        pictures.append(torch.from_numpy(pixels.copy()))
        captions.append(example.captions[0] if example.captions else "")
    if not pictures:
        raise DataError(f"{source.name}: none of {len(positions)} pairs can be read")
    tokens = tokenize(captions, context_length=context, truncate=True)
    return torch.stack(pictures), tokens, (time.perf_counter() - started) / len(positions)


def _views(recipe: Recipe, resolution: int, canvas: Tensor) -> Tensor:
    if isinstance(recipe.augmentation, Drawings):
        mirrored = torch.zeros(len(canvas), dtype=torch.bool, device=canvas.device)
        chance = random_table(0, len(canvas)).to(canvas.device)
        return draw_views(canvas, mirrored, chance, recipe.augmentation, resolution)
    return canvas.to(torch.float32).div_(255)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _free_in_container(otherwise: int) -> int:
    """What a container's limit (control groups, version 2) leaves, where there is one."""
    group = Path("/sys/fs/cgroup")
    try:
        most = int((group / "memory.max").read_text("ascii"))  # without a limit it says "max"
        used = int((group / "memory.current").read_text("ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
    except (OSError, ValueError):
        return otherwise
    # Files that were read and may be forgotten count as used.
    return max(0, most - used + int(stat.get("inactive_file", 0)))
