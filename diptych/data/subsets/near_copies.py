"""Find near copies within a class: the frames of a burst, crops, copies of another size or quality.

If training has one of them and the held-out part the other, the evaluation measures memory. No model is needed to find
them: an image is compared, as a small grid of colours, with parts of the other and with its mirror image.
docs/finetuning.md says what the rule finds and what it misses.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diptych.data.examination import Finding, examine
from diptych.data.example import Example
from diptych.data.images.decoding import WHITE, read_rgb
from diptych.data.images.transforms import resize_and_crop
from diptych.data.sources.opening import Source

Groups = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float32]
_Pixels = npt.NDArray[np.uint8]

# The correlations from which two images count as copies. A group of more than a third of its class is divided by the
# next level: images of a simple thing on an empty background are alike without being copies.
LEVELS = (0.85, 0.92, 0.96, 0.98, 0.99)

# The largest class whose images are compared with one another: some minutes on two cores.
MOST = 50_000

_SIDE = 32  # pixels of the small square that represents an image
_PARTS = (0.9, 0.8)  # sides of the parts that are compared besides the whole, as fractions of it
_PLACES = 3  # positions of such a part, across and down
_FLAT = 2.0  # standard deviation, of 255, below which an image is too uniform to compare
_FEW = 12  # images that may all be one burst, whatever their class
_ROWS = 256  # images whose parts are computed at once
_CELLS = 1 << 24  # correlations at once


@dataclass(frozen=True)
class NearCopies:
    """The groups of near copies.

    groups: (n,), for each image the first of its group; its own position if it is alone. strict: the classes whose
    images are so alike that a level above the first was used. unsearched: the classes of more than `most` images.
    """

    groups: Groups
    strict: tuple[str, ...]
    unsearched: tuple[str, ...]


def near_copies(
    source: Source, positions: Sequence[int], labels: Sequence[str | None], *, most: int = MOST
) -> NearCopies:
    """Group the images of a source that are near copies of one another, within each class.

    positions: (n,) rows of the source. labels: (n,) their classes; None is a class. most: the largest class that is
    searched, because the time grows with the square of its size.

    A group is connected: each member is a near copy of some other member. An image that cannot be read, or that has
    one colour, is alone. The result depends on the images only: not on a seed, a model, or other classes.
    """
    members: dict[str | None, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        members[label].append(row)
    groups = np.arange(len(positions))
    strict, unsearched = [], []
    for label, rows in members.items():
        name = "" if label is None else label
        if len(rows) > most:
            unsearched.append(name)
            continue
        # One class at a time, so that only its small images are in memory.
        small = np.zeros((len(rows), _SIDE, _SIDE, 3), np.uint8)
        found = examine(source, _small, positions=[positions[row] for row in rows], need_caption=False)
        for place, one in enumerate(found):
            if isinstance(one, Finding):
                small[place] = one.found
        seen = np.flatnonzero(small.std(axis=(1, 2, 3)) >= _FLAT)
        own = np.array(rows)[seen]
        joined, level = _join(small[seen], most=max(_FEW, len(own) // 3))
        groups[own] = own[joined]
        if level:
            strict.append(name)
    return NearCopies(groups, tuple(sorted(strict)), tuple(sorted(unsearched)))


def _small(example: Example) -> _Pixels:
    """Read the whole image, distorted to a square of `_SIDE` pixels, (side, side, 3)."""
    return resize_and_crop(read_rgb(example.image, WHITE), (_SIDE, _SIDE), (_SIDE, _SIDE), "bilinear")


def _join(small: _Pixels, most: int, level: int = 0) -> tuple[Groups, int]:
    """Return (n,) the first image of each one's group, and the highest level used.

    most: the largest group that is not divided by the next level.
    """
    groups, used = _link(small, LEVELS[level]), level
    if level + 1 < len(LEVELS):
        for first, count in zip(*np.unique(groups, return_counts=True), strict=True):
            if count > most:
                rows = np.flatnonzero(groups == first)
                within, deeper = _join(small[rows], most, level + 1)
                groups[rows], used = rows[within], max(used, deeper)
    return groups, used


def _link(small: _Pixels, least: float) -> Groups:
    """Return (n,) the first image of each one's connected group of images that correlate by `least` or more."""
    groups = np.arange(len(small))
    whole = _features(small, parts=1)[:, 0]
    rows = min(_ROWS, max(1, _CELLS // (_ALL * len(small))))  # compared at once with all of them
    for at in range(0, len(small), rows):
        parts = _features(small[at : at + rows], parts=_ALL)
        alike = (parts.reshape(-1, parts.shape[2]) @ whole.T).reshape(*parts.shape[:2], -1).max(axis=1)
        for row, near in enumerate(alike >= least):
            near[at + row] = True
            together = np.unique(groups[near])
            if len(together) > 1:
                groups[np.isin(groups, together)] = together[0]
    return groups


def _features(small: _Pixels, parts: int) -> _Floats:
    """Return (n, parts, features) of unit length: of each whole image, its mirror image, its parts, and their mirrors.

    small: (n, side, side, 3). The features are grey cells, and the differences of two colours from grey in cells twice
    as large, as in JPEG. Their means are subtracted, so that neither brightness nor contrast matters.
    """
    pixels = small.reshape(len(small), -1, 3).astype(np.float32)
    grey = pixels.mean(axis=2)
    fine = (grey @ _FINE[:, : parts * 64]).reshape(len(small), parts, 64)
    planes = [fine - fine.mean(axis=2, keepdims=True)]
    for colour in (0, 2):
        coarse = ((pixels[..., colour] - grey) @ _COARSE[:, : parts * 16]).reshape(len(small), parts, 16)
        # Times 2, because a cell covers four.
        planes.append(2 * (coarse - coarse.mean(axis=2, keepdims=True)))
    values: _Floats = np.concatenate(planes, axis=2)
    values /= np.maximum(np.linalg.norm(values, axis=2, keepdims=True), 1e-6)
    return values


def _cells(grid: int) -> _Floats:
    """Return (pixels, parts * grid * grid): the matrix that averages equal cells of each part of a small image."""
    parts = [(0.0, 0.0, 1.0)]
    for side in _PARTS:
        corners = np.linspace(0, 1 - side, _PLACES)
        parts += [(down, across, side) for down in corners for across in corners]
    found = []
    for down, across, side in parts:
        rows, columns = _line(down, side, grid), _line(across, side, grid)
        found += [np.kron(rows, columns), np.kron(rows, columns[:, ::-1])]
    return np.ascontiguousarray(np.concatenate(found).T)


def _line(first: float, side: float, grid: int) -> _Floats:
    """Return (grid, pixels): the matrix that averages equal cells of a part of a line, from the fraction `first` on."""
    edges = _SIDE * (first + side * np.arange(grid + 1) / grid)
    pixels = np.arange(_SIDE)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    cells = np.maximum(overlap, 0).astype(np.float32)
    means: _Floats = cells / cells.sum(axis=1, keepdims=True)
    return means


_FINE, _COARSE = _cells(8), _cells(4)
_ALL = _FINE.shape[1] // 64  # parts of an image
