"""Pictures without a model: a source of files in memory or on the disk, and vectors made of their bytes."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diptych.data.example import Example
from diptych.data.images.thumbnails import Preview
from diptych.data.sources.opening import Source
from diptych.embed.encode import ImageInput, Vectors
from diptych.embed.source_rows import EmbeddedBatch, SkippedRow, uri_of
from diptych.errors import DataError

DIM = 8
DAMAGED = b"damaged"


def vector_of(data: bytes) -> np.ndarray:
    """Unit length, another one for every content."""
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def preview_of(data: bytes) -> Preview:
    """As many pixels as there are bytes, and a copy that is found again in a folder's files."""
    return Preview(len(data), 1, b"small copy of " + data)


class Folder:
    """The files of a folder as a source, without any rule about what an image is."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.fingerprint = "0" * 64
        self._paths = sorted(path for path in folder.iterdir() if path.suffix == ".png")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, position: int) -> Example:
        path = self._paths[position]
        if not path.exists():
            raise DataError(f"{path}: gone")
        return Example(key=path.name, image=path, captions=(path.stem,))

    def describe(self) -> str:
        return self.name


class Contained:
    """Pictures inside something else, given as bytes."""

    def __init__(self, name: str, pictures: dict[str, bytes]) -> None:
        self.name = name
        self.fingerprint = "0" * 64
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, position: int) -> Example:
        key = list(self.pictures)[position]
        return Example(key=key, image=self.pictures[key])

    def describe(self) -> str:
        return self.name


@dataclass
class FakeEncoder:
    """Embeds by `vector_of`; `embedded` lists the keys that it was asked for."""

    name: str = "fake"
    fingerprint: str = "f" * 64
    dim: int = DIM
    batch_size: int = 3
    embedded: list[str] = field(default_factory=list)

    def rows(
        self, source: Source, positions: Iterable[int], *, previews: bool = False
    ) -> Iterator[EmbeddedBatch]:
        rows = iter(positions)
        while batch := [position for _, position in zip(range(self.batch_size), rows, strict=False)]:
            yield self._embed(source, batch, previews)

    def _embed(self, source: Source, positions: list[int], previews: bool) -> EmbeddedBatch:
        good: list[tuple[int, Example, bytes]] = []
        skipped = []
        for position in positions:
            example = source[position]
            assert isinstance(example.image, bytes), "a refresh hands out what it has hashed"
            if example.image == DAMAGED:
                skipped.append(SkippedRow(position, "?", "unreadable image", f"{example.key}: damaged"))
            else:
                good.append((position, example, example.image))
                self.embedded.append(example.key)
        vectors = [vector_of(data) for _, _, data in good]
        return EmbeddedBatch(
            positions=tuple(position for position, _, _ in good),
            examples=tuple(example for _, example, _ in good),
            uris=tuple(uri_of(source, example) for _, example, _ in good),
            vectors=np.array(vectors, np.float32).reshape(-1, DIM),
            skipped=tuple(skipped),
            previews=tuple(preview_of(data) for _, _, data in good) if previews else (),
        )


class FakeQuestions:
    """Embeds a text as the picture whose bytes it names; counts the calls."""

    name = "fake"
    fingerprint = "f" * 64
    dim = DIM

    def __init__(self) -> None:
        self.calls: list[int] = []

    def texts(self, texts: list[str]) -> Vectors:
        return self.images([text.encode() for text in texts])

    def images(self, images: list[ImageInput]) -> Vectors:
        self.calls.append(len(images))
        files = [image for image in images if isinstance(image, bytes)]
        assert len(files) == len(images), "the tests ask with the bytes of files"
        return np.array([vector_of(data) for data in files])
