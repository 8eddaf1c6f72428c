"""The batch that training receives from the loader."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One process's share of a global batch, before augmentation.

    Random numbers come from tables of the whole batch, of which these are the share's rows. So a sample is drawn
    alike with any number of processes.

    canvas: (rows, channels, side, side), uint8, as the decoder made it.
    tokens: (rows, context), ids of the sampled texts.
    groups: (rows,), int64; equal for pairs with the same first caption.
    mirrored: (rows,), bool; whether left and right may be exchanged.
    chance: (rows, columns), uniform random numbers, one row per sample.
    position: the number of samples of the run before the global batch.
    rows: (rows,), int64, the index of each example in the source, or of its replacement if it could not be read.
    seeds: (rows,), int64, see `order.row_seeds`.
    first: the index of the share's first row in the global batch.
    global_count: rows of the global batch.
    sounds: (rows, frames, bands), float32, if the loader reads sounds; see `sounds.log_mel`.
    images: (rows,), int64, if the loader distinguishes images; equal for rows with equal image files.
    """

    canvas: Tensor
    tokens: Tensor
    groups: Tensor
    mirrored: Tensor
    chance: Tensor
    position: int
    rows: Tensor
    seeds: Tensor
    first: int
    global_count: int
    sounds: Tensor | None = None
    images: Tensor | None = None
