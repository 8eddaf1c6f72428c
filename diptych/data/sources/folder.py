"""Read a folder of images: with captions beside them, with class folders, with both, or with neither."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.data.example import (
    IMAGE_SUFFIXES,
    Example,
    decode_text,
    example_from_record,
    is_nothing,
    parse_record,
)
from diptych.data.images.decoding import HEIC_NEEDS, READS_HEIC
from diptych.data.left_out import HIDDEN, ORPHAN, LeftOut, all_left_out
from diptych.data.sources.storage import Strings
from diptych.errors import DataError

# Each suffix of a file with captions, and its bit in `Listing.words`.
_WORDS = {
    suffix: 1 << bit for bit, suffix in enumerate((".json", ".txt", ".caption", ".JSON", ".TXT", ".CAPTION"))
}

STATISTICS = "_stats.json"  # img2dataset writes this beside a finished shard

_HEIC = (".heic", ".heif", ".hif")
_VIDEOS = (".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".3gp", ".mts", ".wmv")
# A Live Photo of an iPhone: a video beside the image of the same name has one of these suffixes.
_LIVE = (".mov", ".mp4")

CIRCLE = "link in a circle"
UNLISTED = "folder that cannot be listed"
SPECIAL = "pipe, socket or device"
INDEX = "folder of a search index"
MODEL = "folder of a model"

# The file that marks a folder written by Diptych, the fields of the file, and the reason to skip the folder.
_OWN = {
    "index.json": ({"format_version", "current", "check"}, INDEX),
    "diptych.json": ({"format_version", "kind", "sha256"}, MODEL),
}
_LARGEST_OWN = 64 << 20  # bytes; a larger JSON file is not one of Diptych's
_LARGEST_WORDS = 64 << 20  # bytes of a caption file
# The files of an index beside its `index.json`, if that lies in the folder of images itself.
_PARTS_OF_INDEX = ("thumbnails", ".lance")


@dataclass(frozen=True)
class Listing:
    """The content of a folder.

    images: paths relative to the folder, with forward slashes, sorted folder by folder.
    words: one byte per image, whose bits tell which caption files lie beside it.
    caption_files: the number of caption files beside images.
    left_out: everything else, by reason, named as images are; a folder ends in a slash. Images, caption files and what
        is left out add up to the files of the folder. A folder that is skipped as a whole (a hidden one, one that
        cannot be listed, a search index) counts as one.
    """

    images: Strings
    words: bytes
    caption_files: int
    left_out: LeftOut

    @property
    def captioned(self) -> int:
        """Count the images that have caption files beside them."""
        return len(self.words) - self.words.count(0)


def list_folder(folder: Path) -> Listing:
    """List a folder and the folders below it.

    Links are followed, but not back into a folder above. Hidden files and folders (with a leading dot), folders that
    cannot be listed, and folders of search indexes and models are left out and counted.

    Raises:
        DataError: the folder itself cannot be listed.
    """
    words = bytearray()
    left_out = LeftOut()
    caption_files = 0

    def images() -> Iterator[str]:
        nonlocal caption_files
        for prefix, names in _folders(folder, left_out):
            beside: dict[str, list[str]] = {}
            stems = set()
            others = []
            for name in names:
                stem, suffix = os.path.splitext(name)
                if _is_image(suffix):
                    stems.add(stem)
                elif suffix in _WORDS and not name.endswith(STATISTICS):
                    beside.setdefault(stem, []).append(suffix)
                else:
                    others.append(name)
            for name in names:
                stem, suffix = os.path.splitext(name)
                if _is_image(suffix):
                    words.append(sum(_WORDS[found] for found in beside.get(stem, ())))
                    yield prefix + name
            for stem, suffixes in beside.items():
                if stem in stems:
                    caption_files += len(suffixes)
                    continue
                for suffix in suffixes:
                    left_out.add(ORPHAN, f"{prefix}{stem}{suffix}")
            for name in others:
                left_out.add(_reason(name, stems, names), prefix + name)

    found = Strings(images())
    return Listing(found, bytes(words), caption_files, left_out)


def _is_image(suffix: str) -> bool:
    suffix = suffix.lower()
    return suffix.removeprefix(".") in IMAGE_SUFFIXES and (READS_HEIC or suffix not in _HEIC)


def _reason(name: str, images: set[str], names: list[str]) -> str:
    """Return why a file is not used. images: the stems of the images beside it."""
    stem, suffix = os.path.splitext(name)
    suffix = suffix.lower()
    if suffix in _HEIC:
        return HEIC_NEEDS
    if suffix in _VIDEOS:
        live = suffix in _LIVE and (
            stem in images
            or any(f"{stem}{beside}" in names for heic in _HEIC for beside in (heic, heic.upper()))
        )
        return f"video of a Live Photo: {suffix}" if live else f"video: {suffix}"
    return f"not an image: {suffix or 'no suffix'}"


def _folders(top: Path, left_out: LeftOut) -> Iterator[tuple[str, list[str]]]:
    """Yield the path and the sorted file names of a folder, then of the folders below it, in sorted order."""
    # A stack, because folders may be nested deeper than Python's calls may.
    waiting: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(top, "", frozenset())]
    while waiting:
        folder, prefix, above = waiting.pop()
        try:
            status = os.stat(folder)
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                left_out.add(CIRCLE, prefix)
                continue
            own = _own(folder)
            if own is not None and prefix:
                left_out.add(own, prefix)
                continue
            files, folders = _entries(folder, prefix, left_out, own == INDEX)
        except OSError as error:
            if not prefix:
                raise DataError(f"{folder}: cannot be listed ({error.strerror}); check the path") from None
            left_out.add(UNLISTED, prefix)
            continue
        yield prefix, files
        inside = above | {identity}
        waiting += [(folder / name, f"{prefix}{name}/", inside) for name in reversed(folders)]


def _entries(folder: Path, prefix: str, left_out: LeftOut, holds_index: bool) -> tuple[list[str], list[str]]:
    """Return the names of the files and of the folders in a folder, both sorted."""
    files, folders = [], []
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            left_out.add(HIDDEN, prefix + entry.name)
        elif holds_index and (entry.name == "index.json" or entry.name.endswith(_PARTS_OF_INDEX)):
            left_out.add(INDEX, prefix + entry.name)
        else:
            try:
                if entry.is_dir():
                    folders.append(entry.name)
                # A broken link counts as a file; reading it is an error.
                elif entry.is_symlink() or entry.is_file():
                    files.append(entry.name)
                else:
                    left_out.add(SPECIAL, prefix + entry.name)
            except OSError:
                left_out.add(CIRCLE, prefix + entry.name)
    return files, folders


def _own(folder: Path) -> str | None:
    """Return the reason to skip a folder that Diptych wrote; None for any other folder."""
    for name, (fields, reason) in _OWN.items():
        path = folder / name
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_OWN:
                continue
            values = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(values, dict) and fields <= values.keys():
            return reason
    return None


class FolderSource:
    """The examples of a folder.

    Captions come from files beside the images (`x.txt` or `x.caption` with one caption per line, `x.json` with an
    object). The label is the one in `x.json`, else the name of the folder that the image lies in. Images in the top
    folder without such files have neither, which is enough for embedding and searching.
    """

    def __init__(self, folder: Path, listing: Listing) -> None:
        if not len(listing.images):
            found = f" (found {'; '.join(listing.left_out.lines())})" if listing.left_out else ""
            kinds = ", ".join(f".{suffix}" for suffix in IMAGE_SUFFIXES)
            raise DataError(f"{folder}: no images in this folder or below it{found}; images end in {kinds}")
        self.name = str(folder)
        self.left_out = all_left_out([listing.left_out, LeftOut(_remarks(self.name, listing))])
        self._folder = folder
        self._listing = listing

    @property
    def fingerprint(self) -> str:
        """Hash the names of images and caption files; editing a file does not change it."""
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
        try:
            return self._example(name, self._listing.words[position])
        except DataError as error:
            error.image = str(self._folder / name)
            raise

    def _example(self, name: str, beside: int) -> Example:
        """Return the example of an image. beside: the bits of its caption files."""
        path = self._folder / name
        _check_file(path)
        record: dict[str, Any] = {}
        texts = []
        for suffix, bit in _WORDS.items():
            if beside & bit:
                words = path.with_suffix(suffix)
                data = _read(words)
                if suffix.lower() == ".json":
                    record |= parse_record(data, str(words))
                else:
                    texts.append(decode_text(data, str(words)))
        label = record.get("label")
        if is_nothing(label) or not str(label).strip():
            record["label"] = _class_folder(name)
        return example_from_record(name, path, record, str(path.with_suffix(".json")), "\n".join(texts))

    def describe(self) -> str:
        """Summarise what was found, and what was left out, in a few lines."""
        captioned = self._listing.captioned
        lines = [f"{self.name}: {len(self):,} image{'s' if len(self) > 1 else ''}"]
        if captioned:
            lines[0] += f", {captioned:,} with captions beside them"
        labels = {_class_folder(name) for name in self._listing.images} - {""}
        if labels:
            lines[0] += f" in {len(labels):,} class folder{'s' if len(labels) > 1 else ''}"
        elif not captioned:
            lines[0] += " without captions or class folders"
        if captioned < len(self) and captioned:
            lines.append(f"without captions: {len(self) - captioned:,} images")
        if self._listing.left_out:
            lines.append(f"left out: {'; '.join(self._listing.left_out.lines())}")
        return "\n".join(lines)


def _remarks(name: str, listing: Listing) -> list[str]:
    """Return a remark if some images have captions beside them, but fewer than half."""
    captioned, total = listing.captioned, len(listing.images)
    if not 0 < 2 * captioned < total:
        return []
    verb = "has a caption file beside it" if captioned == 1 else "have caption files beside them"
    labels = (
        "; the label of each image is the name of its folder"
        if any("/" in each for each in listing.images)
        else ""
    )
    return [f"{name}: only {captioned:,} of {total:,} images {verb}, the others have no caption{labels}"]


def _class_folder(name: str) -> str:
    """Return the name of the folder that an image lies in; empty for the top folder."""
    return name.rpartition("/")[0].rpartition("/")[2]


def _check_file(path: Path) -> None:
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        if path.is_symlink():
            raise DataError(
                f"{path}: no such image: it is a link to {os.readlink(path)}, which does not exist; repair the link"
            ) from None
        raise DataError(
            f"{path}: this image was there when the folder was listed, but is now missing; open the folder again"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if not regular:
        raise DataError(f"{path}: cannot be read (not a file); expected an image file")


def _read(path: Path) -> bytes:
    """Return the bytes of a caption file, never of a pipe or a device, which have no end."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            reason = "not a file"
        elif status.st_size > _LARGEST_WORDS:
            reason = f"{status.st_size:,} bytes; at most {_LARGEST_WORDS:,} are read"
        else:
            return path.read_bytes()
    except OSError as error:
        reason = str(error.strerror)
    raise DataError(f"{path}: this caption file cannot be read ({reason}); repair it or remove it")
