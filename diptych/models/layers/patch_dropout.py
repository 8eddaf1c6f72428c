"""Which patches of an image a training step looks at (FLIP: Li et al. 2022, "Scaling Language-Image Pre-training
via Masking").

The choice is a pure function of one seed an image, computed by a counter-based hash and not drawn from a generator:
an image has the same patches in any chunk, process, order and device, in the first and the second pass over a
batch, and after a run was resumed.
"""

import torch
from torch import Tensor

from diptych.errors import SettingsError

# splitmix64 (Steele, Lea and Flood 2014): an odd step, and a finaliser of two multiplications (Stafford's variant
# 13). Written as signed numbers, since torch has no unsigned 64-bit arithmetic; the low 64 bits are the same.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def kept_patches(seeds: Tensor, patches: int, share_dropped: float) -> Tensor:
    """The patches of each image that stay: (batch, kept), int64, ascending, each subset equally likely.

    seeds: (batch,) int64, one an image and step. patches: of a whole image. share_dropped: at least 0, below 1; the
    number of patches that stay is the nearest to the rest, and at least one.
    """
    if not 0 <= share_dropped < 1:
        raise SettingsError(
            f"patch_dropout = {share_dropped}: the share of the patches to leave out is at least 0 and below 1"
        )
    kept = max(1, round(patches * (1 - share_dropped)))
    # Within a row the finaliser gets distinct numbers, and it is a bijection: there are no ties to break.
    number = torch.arange(1, patches + 1, device=seeds.device)
    keys = splitmix64(splitmix64(seeds)[:, None] + number * _STEP)
    return keys.argsort(dim=1)[:, :kept].sort(dim=1).values


def splitmix64(numbers: Tensor) -> Tensor:
    """The finaliser of splitmix64, a bijection that scatters neighbours. numbers: int64, taken modulo 2^64."""
    mixed = (numbers ^ _shift_right(numbers, 30)) * _FIRST
    mixed = (mixed ^ _shift_right(mixed, 27)) * _SECOND
    return mixed ^ _shift_right(mixed, 31)


def _shift_right(numbers: Tensor, bits: int) -> Tensor:
    """The logical right shift; torch's own keeps the sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
