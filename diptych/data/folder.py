"""A folder of images: captions beside them, or one folder a class, or just images."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.data.example import IMAGE_SUFFIXES, Example, decode_text, example_from_record, parse_record
from diptych.data.storage import Strings
from diptych.errors import DataError

# Each suffix of a file with captions, and its bit in `Listing.words`.
_WORDS = {
    suffix: 1 << bit for bit, suffix in enumerate((".json", ".txt", ".caption", ".JSON", ".TXT", ".CAPTION"))
}

STATISTICS = "_stats.json"  # what img2dataset writes beside a shard once it is done


@dataclass(frozen=True)
class Listing:
    """What is in a folder.

    images: paths relative to the folder, with forward slashes, sorted folder by folder.
    words: a byte an image; its bits say which caption files lie beside it.
    other_files: how many files are neither image nor caption, by suffix.
    orphans: caption files without an image.
    """

    images: Strings
    words: bytes
    other_files: dict[str, int]
    orphans: int


def list_folder(folder: Path) -> Listing:
    """Look through a folder and the folders below it; hidden ones (with a leading dot) are passed over.

    Links are followed, but not back into a folder that is being looked through.

    Raises:
        DataError: a folder cannot be listed.
    """
    words = bytearray()
    other_files: Counter[str] = Counter()
    orphans = 0

    def images() -> Iterator[str]:
        nonlocal orphans
        for prefix, names in _folders(folder, "", frozenset()):
            beside: dict[str, int] = {}
            for name in names:
                stem, suffix = os.path.splitext(name)
                if suffix in _WORDS and not name.endswith(STATISTICS):
                    beside[stem] = beside.get(stem, 0) | _WORDS[suffix]
            stems = set()
            for name in names:
                stem, suffix = os.path.splitext(name)
                if suffix.lower().removeprefix(".") in IMAGE_SUFFIXES:
                    stems.add(stem)
                    words.append(beside.get(stem, 0))
                    yield prefix + name
                elif suffix not in _WORDS or name.endswith(STATISTICS):
                    other_files[suffix.lower() or "(no suffix)"] += 1
            orphans += len(beside.keys() - stems)

    found = Strings(images())
    return Listing(found, bytes(words), dict(other_files), orphans)


def _folders(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, list[str]]]:
    """The names of the files in a folder, and then of those below it, both sorted."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as scan:
            entries = sorted(
                (entry for entry in scan if not entry.name.startswith(".")), key=lambda entry: entry.name
            )
            # A link that leads nowhere is a file, and an error once it is read.
            folders = [entry.name for entry in entries if entry.is_dir()]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    inside = set(folders)
    yield prefix, [entry.name for entry in entries if entry.name not in inside]
    for name in folders:
        yield from _folders(folder / name, f"{prefix}{name}/", above | {identity})


class FolderSource:
    """Examples of a folder.

    If any image has captions beside it (`x.txt` or `x.caption` with one caption a line, `x.json` with an
    object), captions come from there. If none has, the name of the folder that an image lies in is its label.
    Images in the top folder then have neither, which is enough for embedding and searching.
    """

    def __init__(self, folder: Path, listing: Listing) -> None:
        if not len(listing.images):
            found = f" (found {_counts(listing)})" if listing.other_files else ""
            kinds = ", ".join(f".{suffix}" for suffix in IMAGE_SUFFIXES)
            raise DataError(f"{folder}: no images in this folder or below it{found}; images end in {kinds}")
        self.name = str(folder)
        self._folder = folder
        self._listing = listing
        self._captioned = any(listing.words)

    @property
    def fingerprint(self) -> str:
        """Changes when images or caption files are added, removed or renamed, not when they are edited."""
        digest = hashlib.sha256(self._listing.words)
        for name in self._listing.images:
            digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._listing.images)

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)
        name = self._listing.images[position]
        path = self._folder / name
        if not path.is_file():
            raise DataError(f"{path}: this image was there when the folder was listed and is not now")
        if not self._captioned:
            folder = name.rpartition("/")[0].rpartition("/")[2]
            return Example(key=name, image=path, label=folder or None)
        record: dict[str, Any] = {}
        texts = []
        for suffix, bit in _WORDS.items():
            if self._listing.words[position] & bit:
                words = path.with_suffix(suffix)
                data = _read(words)
                if suffix.lower() == ".json":
                    record |= parse_record(data, str(words))
                else:
                    texts.append(decode_text(data, str(words)))
        return example_from_record(name, path, record, str(path.with_suffix(".json")), "\n".join(texts))

    def describe(self) -> str:
        """What was found, and what was left out, in a few lines."""
        lines = [f"{self.name}: {len(self):,} images"]
        if self._captioned:
            without = self._listing.words.count(0)
            lines[0] += f", {len(self) - without:,} with captions beside them"
            if without:
                lines.append(f"without captions: {without:,} images")
        else:
            labels = {name.rpartition("/")[0].rpartition("/")[2] for name in self._listing.images} - {""}
            if labels:
                lines[0] += f" in {len(labels):,} class folders"
            else:
                lines[0] += " without captions or class folders"
        if self._listing.orphans:
            lines.append(f"not used: caption files of {self._listing.orphans:,} names that have no image")
        if self._listing.other_files:
            lines.append(f"not used: {_counts(self._listing)}")
        return "\n".join(lines)


def _counts(listing: Listing) -> str:
    ranked = sorted(listing.other_files.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[8:])
    named = [f"{count:,} {suffix}" for suffix, count in ranked[:8]]
    return ", ".join([*named, f"{rest:,} others"] if rest else named)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
