"""Two sources that the readers of published layouts fill: listed image files, and images in one array."""

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from diptych.data.example import Example
from diptych.data.left_out import left_out_of
from diptych.data.sources.opening import Source
from diptych.errors import DataError

Pixels = npt.NDArray[np.uint8]
Reader = Callable[[Path, str], Source]
"""From a dataset's folder and a split to its examples. Raises DataError where a file is missing or damaged."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a list. file: relative to the list's folder, and unique; the others as in `Example`."""

    file: str
    label: str | None = None
    captions: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


class ListedImages:
    """Examples of a list of files below one folder. PPM files, which no decoder here takes, arrive as PNG.

    Raises:
        DataError: the list is empty, or names a file twice.
    """

    def __init__(self, folder: Path, rows: Sequence[Row], listed_in: str) -> None:
        self.name = str(folder)
        self._folder = folder
        self._rows = rows
        self._listed_in = listed_in
        if not rows:
            raise DataError(f"{listed_in}: lists no images; expected one or more")
        seen: set[str] = set()
        for row in rows:
            if row.file in seen:
                raise DataError(f"{listed_in}: lists {row.file!r} twice; each image may be there once")
            seen.add(row.file)

    @property
    def fingerprint(self) -> str:
        """Changes with the list: its files, labels, captions and what else it says."""
        digest = hashlib.sha256()
        for row in self._rows:
            digest.update(repr((row.file, row.label, row.captions, sorted(row.metadata.items()))).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)
        row = self._rows[position]
        path = self._folder / row.file
        if not path.is_file():
            raise DataError(
                f"{path}: no such file, though {self._listed_in} lists it; unpack the images again"
            )
        return Example(
            key=row.file,
            image=_as_png(path) if path.suffix.lower() == ".ppm" else path,
            captions=row.captions,
            label=row.label,
            metadata=row.metadata,
        )

    def describe(self) -> str:
        """Return what was found, in a line."""
        return f"{self.name}: {len(self):,} images listed in {self._listed_in}"


class ArrayImages:
    """Examples whose pixels lie in one array: (n, height, width) grey or (n, height, width, 3) colour.

    Each is handed out as the bytes of a BMP file, which is made in microseconds and loses nothing.
    """

    def __init__(self, name: str, pixels: Pixels, labels: Sequence[str]) -> None:
        if len(pixels) != len(labels):
            raise DataError(
                f"{name}: {len(pixels):,} images and {len(labels):,} labels; expected one an image: the files do "
                "not belong together, or one is cut short"
            )
        if not len(pixels):
            raise DataError(f"{name}: no images in it; expected one or more")
        self.name = name
        self._pixels = pixels
        self._labels = tuple(labels)

    @property
    def fingerprint(self) -> str:
        """Over every pixel and label."""
        digest = hashlib.sha256(repr((self._pixels.shape, self._labels)).encode())
        for image in self._pixels:
            digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(self._pixels[position])).save(file, "BMP")
        return Example(key=str(position), image=file.getvalue(), label=self._labels[position])

    def describe(self) -> str:
        """Return what was found, in a line."""
        height, width = self._pixels.shape[1:3]
        return f"{self.name}: {len(self):,} images of {width} x {height} pixels in {len(set(self._labels)):,} classes"


class Relabelled:
    """A source whose labels are called by other names: class numbers by ids, say.

    names: from what the source calls a class to its other name; `spelling` brings a label to the form of the keys. A
    label that is not among them stays as it is, so that whoever compares it with a list of classes says so.
    """

    def __init__(
        self, source: Source, names: Mapping[str, str], spelling: Callable[[str], str] = str
    ) -> None:
        self.name = source.name
        self.left_out = left_out_of(source)
        self._source = source
        self._names = dict(names)
        self._spelling = spelling

    @property
    def fingerprint(self) -> str:
        """Over the source and the table."""
        return hashlib.sha256(f"{self._source.fingerprint}{sorted(self._names.items())}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> Example:
        example = self._source[position]
        if example.label is None:
            return example
        return replace(example, label=self._names.get(self._spelling(example.label), example.label))

    def describe(self) -> str:
        """Return what the source underneath found."""
        return self._source.describe()


def read_lines(file: Path) -> Iterator[str]:
    """Read the lines of a list file that are not empty, without space around them.

    Raises:
        DataError: it is missing, or is not UTF-8 text.
    """
    for line in read_text(file).splitlines():
        if line.strip():
            yield line.strip()


def read_text(file: Path) -> str:
    """Read the text of a small file; DataError where it is missing, or is not UTF-8."""
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); unpack the dataset again") from None


# Magic number, width, height and largest value, with comments between them; one space ends the header.
_PPM_HEADER = re.compile(rb"P6" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})" + rb"\s")


def _as_png(path: Path) -> bytes:
    """Re-encode a binary PPM of 8 bits a channel (`P6`), as the German traffic signs have it, without loss."""
    data = path.read_bytes()
    header = _PPM_HEADER.match(data)
    width, height, largest = (int(number) for number in header.groups()) if header else (0, 0, 0)
    size = width * height * 3
    if header is None or largest != 255 or not 0 < size <= len(data) - header.end():
        raise DataError(
            f"{path}: not a binary PPM of 8 bits a channel, or cut short; unpack the images again"
        )
    pixels = np.frombuffer(data, np.uint8, size, header.end()).reshape(height, width, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
