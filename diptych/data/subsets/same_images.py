"""Find the rows of a source that show the same image: one file, or files with equal bytes.

A table with one row per caption names each image several times; a table that contains its images repeats their bytes.
Code that counts images, holds some out, or uses them as wrong answers needs this.
"""

import hashlib
import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diptych.data.examination import Finding, examine
from diptych.data.example import Example
from diptych.data.images.decoding import read_file
from diptych.data.sources.opening import Source
from diptych.errors import DataError

Integers = npt.NDArray[np.int64]

Mark = tuple[
    int, int, int, int
]  # of an image: a kind, the size in bytes, a hash of the file's name or content (2)
_RUN = 50  # rows: more than an image has captions
_UNKNOWN, _FILE, _CONTENT = 0, 1, 2
_DIGEST_BYTES = 16  # among a billion different images, a collision has a probability below 1e-20


def same_images(source: Source, positions: Iterable[int] | None = None, *, workers: int = 2) -> Integers:
    """Find the rows of a source that show the same image: the same file, or files with equal bytes.

    positions: n rows of the source; all of them by default.
    workers: the number of threads that read.

    Returns (n,): for each row, the index within `positions` of the first row that shows the same image. So the numbers
    of two rows are equal exactly if their images are, and `images == np.arange(n)` marks each image's first row. A row
    that cannot be read counts as an image of its own.

    Nothing is decoded. A file is read only if a different file, or an image inside the source, has its size.
    """
    rows = np.arange(len(source)) if positions is None else np.fromiter(positions, np.int64)
    seen = ImageMarks(len(rows))
    marked = examine(source, mark_image, positions=rows.tolist(), workers=workers, need_caption=False)
    for row, found in enumerate(marked):
        if isinstance(found, Finding):
            seen.note(row, found.found)
    return seen.images(source, rows, workers=workers)


class ImageMarks:
    """Marks that distinguish the images of n rows, for code that reads a source anyway; else use `same_images`."""

    def __init__(self, rows: int) -> None:
        self._marks = np.zeros((rows, 4), np.int64)
        self._marks[:, 2] = np.arange(rows)

    def note(self, row: int, found: Mark) -> None:
        """Set the mark of a row's image; a row without a mark shows an image of its own."""
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
            # A file that exists but cannot be read remains the image of the rows that name it.
            if isinstance(found, Finding):
                marks[row] = found.found
        return _first_equal(marks[files])


def neighbouring_rows(count: int, most: int) -> list[int]:
    """Choose at most `most` of `count` rows, in evenly spread runs of consecutive rows.

    Rows of one image mostly lie next to each other, so single rows far apart would not show any repetition.
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
    """Hash an image file to 64 bits, by its bytes. Raises ImageError if it cannot be read."""
    return _halves(image if isinstance(image, bytes) else read_file(image))[0]


def mark_image(example: Example) -> Mark:
    """Return a cheap mark of an image: the identity of its file, or the hash of bytes that are in memory anyway.

    Raises DataError for a missing file.
    """
    if isinstance(example.image, bytes):
        return _content(example)
    try:
        status = os.stat(example.image)
        # The file itself, whichever path or link leads to it; some network file systems have no inode numbers.
        file = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(example.image)
    except OSError as error:
        raise DataError(f"{example.image}: cannot be read ({error.strerror}); check the path") from None
    return _FILE, status.st_size, *_halves(repr(file).encode("utf-8", "surrogatepass"))


def _content(example: Example) -> Mark:
    data = example.image if isinstance(example.image, bytes) else read_file(example.image)
    if not data:  # failed downloads leave empty files: their bytes are equal, but they show no image
        raise DataError(f"{example.key}: is empty; expected an image; fetch it again or leave it out")
    return _CONTENT, len(data), *_halves(data)


def _first_equal(marks: Integers) -> Integers:
    """Return (n,): for each of n marks (n, 4), the index of the first equal one."""
    order = np.lexsort(marks.T)  # stable: equal rows keep their order
    begins = np.ones(len(marks), np.bool_)
    begins[1:] = (marks[order[1:]] != marks[order[:-1]]).any(axis=1)
    first = np.empty(len(marks), np.int64)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first


def _may_equal_another(marks: Integers, files: Integers) -> npt.NDArray[np.bool_]:
    """Flag (n,) the first row of each file whose size equals that of another file or of an image in memory.

    files: the result of `_first_equal`.
    """
    kind, sizes = marks[:, 0], marks[:, 1]
    first = (files == np.arange(len(files))) & (kind != _UNKNOWN)
    size, count = np.unique(sizes[first], return_counts=True)
    doubtful: npt.NDArray[np.bool_] = first & (kind == _FILE) & np.isin(sizes, size[count > 1])
    return doubtful


def _halves(data: bytes) -> tuple[int, int]:
    """Hash some bytes to two integers."""
    first, second = np.frombuffer(
        hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest(), np.int64
    ).tolist()
    return first, second
