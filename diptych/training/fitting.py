"""How large a chunk fits: measured on a few rows, never guessed from a table of models."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

from diptych.data.loader import Batch
from diptych.errors import SettingsError
from diptych.training.step import on_device
from diptych.training.tasks import Task
from diptych.training.towers import Chunking

_PROBED = 4  # rows of a probe
_LARGEST = 1024  # rows of a chunk; larger ones are no faster
_SMALLEST = 16
# What a backward pass needs beside the saved tensors, and what an allocator wastes, as a share of the saved ones.
_MARGIN = 1.5
_USED = 0.8  # of the free memory


def fitting_chunks(task: Task, batch: Batch, rows: int, free: int) -> Chunking:
    """The chunking with which `rows` rows of a process fit into `free` bytes.

    batch: any rows, of which a few are run. The whole batch at once where it fits; else the largest power of two
    up to 1,024, and as many kept graphs as there is room for. Raises SettingsError where not even 16 rows fit.
    """
    parameters = [value for value in task.model.parameters() if value.requires_grad]
    fixed = 3 * sum(value.numel() * value.element_size() for value in parameters)  # gradient and two moments
    held = rows * sum(_row_bytes(value) for value in (batch.canvas, batch.tokens, batch.chance))
    image, text = row_memory(task, batch)
    room = int(_USED * free) - fixed - held
    if rows * (image + text) <= room:
        return Chunking()
    size = _LARGEST
    while size > _SMALLEST and size * max(image, text) > room:
        size //= 2
    if size * max(image, text) > room:
        raise SettingsError(
            f"[training] chunk = 'auto': {size} rows need {size * max(image, text) / 2**30:.1f} GiB and "
            f"{max(0, room) / 2**30:.1f} GiB are free; set recompute = true, or precision = 'bfloat16', or train a "
            "smaller model"
        )
    spare = room - size * max(image, text)
    keep = max(0, spare // (size * (image + text)))
    return Chunking(size, size, int(keep))


def row_memory(task: Task, batch: Batch) -> tuple[int, int]:
    """Bytes that a row of images, and a row of texts, hold between the forward and the backward pass."""
    few = on_device(batch, next(task.model.parameters()).device)
    rows = torch.arange(min(_PROBED, len(few.tokens)), device=few.tokens.device)
    longest = few.tokens.argmax(dim=1).argsort(descending=True)[: len(rows)]
    image = _saved_bytes(task, lambda: task.image(few, rows)) / len(rows)
    text = _saved_bytes(task, lambda: task.text(few, longest)) / len(rows)
    return int(_MARGIN * image) + 1, int(_MARGIN * text) + 1


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device: of a GPU's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        raise SettingsError(
            "[training] chunk = 'auto': this system does not say how much memory is free; give a number"
        ) from None


def _saved_bytes(task: Task, run: Callable[[], Tensor]) -> int:
    own = {value.untyped_storage().data_ptr() for value in task.model.parameters()}
    saved: dict[int, int] = {}

    def note(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return value

    buffers = [buffer.clone() for buffer in task.model.buffers()]
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        result = run()
    with torch.no_grad():
        for buffer, before in zip(task.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
    del result
    return sum(saved.values())


def _row_bytes(value: Tensor) -> int:
    return value[0].numel() * value.element_size() if len(value) else 0
