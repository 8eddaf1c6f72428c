"""Which rows of a source show the same image: one file, or files with equal bytes.

A table with a row for each caption names each image several times; one that holds its images repeats their bytes.
Whoever counts images, holds some of them out or takes them for wrong answers asks here first.
"""

import hashlib
import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diptych.data.examination import Good, examine
from diptych.data.example import Example
from diptych.data.images.decoding import read_file
from diptych.data.sources.opening import Source
from diptych.errors import DataError

Integers = npt.NDArray[np.int64]

Mark = tuple[
    int, int, int, int
]  # of an image: a kind, the size in bytes, 16 bytes that name the file or its content
_RUN = 50  # rows: more than there are captions of an image
_UNKNOWN, _FILE, _CONTENT = 0, 1, 2
_DIGEST_BYTES = 16  # a billion different images have a chance below 1e-20 that two of them look equal


def same_images(source: Source, positions: Iterable[int] | None = None, *, workers: int = 2) -> Integers:
    """Find the rows of a source that show the same image: the same file, or files with equal bytes.

    positions: n rows of the source; all of them when not given.
    workers: threads that read.

    Returns (n,): for each row, the index within `positions` of the first row that shows the same image. So the numbers
    of two rows are equal exactly where their images are, and `images == np.arange(n)` marks each image's first row. A
    row that cannot be read is an image of its own.

    Nothing is decoded. A file is read only where a different file, or an image inside the source, has its size.
    """
    rows = np.arange(len(source)) if positions is None else np.fromiter(positions, np.int64)
    seen = SeenImages(len(rows))
    marked = examine(source, mark, positions=rows.tolist(), workers=workers, need_caption=False)
    for row, found in enumerate(marked):
        if isinstance(found, Good):
            seen.note(row, found.found)
    return seen.images(source, rows, workers=workers)


class SeenImages:
    """What tells the images of n rows apart, for whoever goes through a source anyway; else see `same_images`."""

    def __init__(self, rows: int) -> None:
        self._marks = np.zeros((rows, 4), np.int64)
        self._marks[:, 2] = np.arange(rows)

    def note(self, row: int, found: Mark) -> None:
        """Keep the mark of a row's image; a row without one shows an image of its own."""
        self._marks[row] = found

    def images(self, source: Source, positions: Integers, *, workers: int = 2) -> Integers:
        """Return what `same_images` does, for the rows at `positions` (n,)."""
        marks = self._marks.copy()
        files = _first_equal(marks)
        doubtful = np.flatnonzero(_may_equal_another(marks, files))
        contents = examine(
            source, _content, positions=positions[doubtful].tolist(), workers=workers, need_caption=False
        )
        for row, found in zip(doubtful.tolist(), contents, strict=True):
            # A file that can be named but not read stays the image of the rows that name it.
            if isinstance(found, Good):
                marks[row] = found.found
        return _first_equal(marks[files])


def neighbouring_rows(count: int, most: int) -> list[int]:
    """Choose at most `most` of `count` rows to look at, spread evenly in runs of consecutive rows.

    Rows of one image mostly stand next to each other; single rows far apart would show none of them.
    """
    if count <= most:
        return list(range(count))
    run = run_length(most)
    runs = most // run
    starts = [number * count // runs for number in range(runs)]
    return [row for start in starts for row in range(start, start + run)]


def run_length(most: int) -> int:
    """Return the length of the runs among `most` rows that `neighbouring_rows` chooses."""
    return max(1, min(_RUN, math.isqrt(most)))


def image_id(image: Path | bytes) -> int:
    """A number for an image file, equal for equal bytes, within 64 bits; ImageError for one that cannot be read."""
    return _halves(image if isinstance(image, bytes) else read_file(image))[0]


def mark(example: Example) -> Mark:
    """Tell an image from others at little cost: by which file it is, or by the hash of bytes that are in memory anyway.

    Raises DataError for a file that is not there.
    """
    if isinstance(example.image, bytes):
        return _content(example)
    try:
        status = os.stat(example.image)
        # The file itself, whichever path or link leads to it; some network file systems do not number their files.
        file = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(example.image)
    except OSError as error:
        raise DataError(f"{example.image}: cannot be read ({error.strerror})") from None
    return _FILE, status.st_size, *_halves(repr(file).encode("utf-8", "surrogatepass"))


def _content(example: Example) -> Mark:
    data = example.image if isinstance(example.image, bytes) else read_file(example.image)
    if not data:  # what a failed download leaves behind: equal bytes, but no image that they could both show
        raise DataError(f"{example.key}: empty; expected an image; fetch it again or leave it out")
    return _CONTENT, len(data), *_halves(data)


def _first_equal(marks: Integers) -> Integers:
    """(n,): for each of n marks (n, 4), the first that is equal."""
    order = np.lexsort(marks.T)  # stable: equal rows stay in their order
    begins = np.ones(len(marks), np.bool_)
    begins[1:] = (marks[order[1:]] != marks[order[:-1]]).any(axis=1)
    first = np.empty(len(marks), np.int64)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first


def _may_equal_another(marks: Integers, files: Integers) -> npt.NDArray[np.bool_]:
    """(n,): the first row of each file whose size another file has, or an image in memory; files: by `_first_equal`."""
    kind, sizes = marks[:, 0], marks[:, 1]
    first = (files == np.arange(len(files))) & (kind != _UNKNOWN)
    size, count = np.unique(sizes[first], return_counts=True)
    doubtful: npt.NDArray[np.bool_] = first & (kind == _FILE) & np.isin(sizes, size[count > 1])
    return doubtful


def _halves(data: bytes) -> tuple[int, int]:
    """A hash of some bytes, as two numbers."""
    first, second = np.frombuffer(
        hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest(), np.int64
    ).tolist()
    return first, second
