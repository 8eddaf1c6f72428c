"""Read tar shards in the webdataset layout at random, through an index of byte offsets.

A shard holds, for each key, one image (`KEY.jpg`, `KEY.webp`, ...) and its texts: `KEY.json` (an object with
`captions`, `caption`, `tags`, `label`, `code`) or `KEY.txt` (one caption per line), and perhaps `KEY.cls` (the
label). This covers the output of img2dataset. The files of a key lie next to each other.

The index is built once from the headers and kept beside the shard as `SHARD.tar.index.json`, or in the user's cache
folder if the shard's folder is read-only or on a server. It is a cache: it may be deleted at any time, and is rebuilt
if it does not match its shard.
"""

import contextlib
import hashlib
import itertools
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from diptych.atomic import write_text
from diptych.data.example import IMAGE_SUFFIXES, Example, decode_text, example_from_record, parse_record
from diptych.data.files.places import Place, RandomAccess, open_to_scan, read_range
from diptych.data.files.remote import RemotePath
from diptych.data.left_out import HIDDEN, ORPHAN, LeftOut, all_left_out
from diptych.data.sources.storage import Strings, Version
from diptych.data.sources.tar import Member, read_members
from diptych.errors import DataError
from diptych.wording import file_size

_FORMAT_VERSION = 2  # version 1 did not name what was left out
_PARTS = ("image", "json", "text", "label")
_PART_OF_SUFFIX = {"json": "json", "txt": "text", "cls": "label"} | dict.fromkeys(IMAGE_SUFFIXES, "image")

SECOND = "second image of its key"

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardIndex:
    """The offsets of the files of each example in one shard.

    keys: one per example, in the order of the shard.
    places: for `image`, `json`, `text` and `label`, an array (examples, 2) of offset and size in bytes; the size is -1
        if an example has no such file.
    version: of the shard; an index of another version is out of date.
    left_out: keys with files but without an image, which are not examples; and members that belong to no example:
        hidden files and unknown suffixes.
    """

    path: Place
    version: Version
    keys: Strings
    places: dict[str, Offsets]
    left_out: LeftOut

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, part: str, position: int) -> bytes | None:
        """Return the bytes of one file of an example, or None if it has no such file."""
        offset, size = self.places[part][position].tolist()
        return None if size < 0 else read_range(self.path, offset, size, self.version)

    def digest(self) -> str:
        """Return the SHA-256 of the shard's name, size and layout, but not of its files' contents."""
        digest = hashlib.sha256(f"{self.path.name}\0{self.version.size}\0".encode("utf-8", "surrogatepass"))
        for key in self.keys:
            digest.update(key.encode("utf-8", "surrogatepass") + b"\0")
        for part in _PARTS:
            digest.update(self.places[part].astype("<i8").tobytes())
        return digest.hexdigest()


def index_shard(shard: Place, *, beside: bool = True) -> ShardIndex:
    """Return the index of a shard: read if one matches, else built and kept.

    beside: keep the index beside the shard if that folder can be written; else only in the user's cache folder.

    Raises:
        DataError: the shard is damaged or cut short, holds links or devices, holds one key twice or in two places, or
            holds no image at all; the message names the file and the offset.
    """
    try:
        file = open_to_scan(shard)
    except OSError as error:
        raise DataError(
            f"{shard}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    homes = _homes(shard, beside)
    for home in homes:
        index = _read_index(home, shard, file)
        if index is not None:
            return index
    index = _build_index(shard, file)
    for home in homes:
        if not _may_write(home.parent):
            continue
        # Without this cache only the next start takes longer.
        with contextlib.suppress(OSError):
            home.parent.mkdir(parents=True, exist_ok=True)
            write_text(home, _to_json(index))
            break
    return index


class ShardSource:
    """The examples of one or more shards, in the order of the list.

    unfinished: the number of shards that were left out because their writer did not finish them, for the summary.
    """

    def __init__(
        self, paths: Sequence[Place], *, name: str, beside: bool = True, unfinished: int = 0
    ) -> None:
        self.name = name
        self._unfinished = unfinished
        self._shards = [index_shard(path, beside=beside) for path in paths]
        self._ends = list(itertools.accumulate(len(shard) for shard in self._shards))
        if len({shard.path.name for shard in self._shards}) < len(self._shards):
            raise DataError(
                f"{name}: two shards have the same file name, so keys would not be unique; rename one"
            )

    @property
    def parts(self) -> tuple[int, ...]:
        """Return the number of examples of each shard: reads within a part are near each other on the disk."""
        return tuple(len(shard) for shard in self._shards)

    @property
    def fingerprint(self) -> str:
        """Hash the shards' digests; it changes if shards are added, removed, renamed, reordered or packed again."""
        return hashlib.sha256(":".join(shard.digest() for shard in self._shards).encode()).hexdigest()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)
        number = bisect_right(self._ends, position)
        shard = self._shards[number]
        row = position - (self._ends[number - 1] if number else 0)
        key = shard.keys[row]
        where = f"{shard.path}: key {key!r}"
        image = shard.read("image", row)
        assert image is not None, "the index keeps only keys with an image"
        record = shard.read("json", row)
        text = decode_text(shard.read("text", row) or b"", f"{where}, .txt")
        label = decode_text(shard.read("label", row) or b"", f"{where}, .cls").strip()
        fields = {} if record is None else parse_record(record, f"{where}, .json")
        if label and fields.get("label") is None:
            fields["label"] = label
        # Keys often start anew in every shard. In a pack they are row numbers, so the key of the original source,
        # which survives the removal of rows, is used instead.
        unique = key if len(self._shards) == 1 else f"{shard.path.stem}/{key}"
        packed = fields.get("source_key")
        unique = packed if isinstance(packed, str) and packed else unique
        return example_from_record(unique, image, fields, f"{where}, .json", text)

    @property
    def left_out(self) -> LeftOut:
        """Return what is in the shards and not used, by reason."""
        found = LeftOut()
        found.add("unfinished shard, without _stats.json", count=self._unfinished)
        return all_left_out([found, *(shard.left_out for shard in self._shards)])

    def describe(self) -> str:
        """Summarise what was found, and what was left out, in a few lines."""
        count = len(self._shards)
        size = sum(shard.version.size for shard in self._shards)
        shards = "1 tar shard" if count == 1 else f"{count:,} tar shards"
        lines = [f"{self.name}: {len(self):,} examples in {shards} ({file_size(size)})"]
        if self._unfinished:
            lines.append(
                f"left out: {self._unfinished:,} unfinished, without the _stats.json that img2dataset writes last"
            )
        if found := all_left_out(shard.left_out for shard in self._shards):
            lines.append(f"left out: {'; '.join(found.lines())}")
        return "\n".join(lines)


def _homes(shard: Place, beside: bool) -> list[Path]:
    """Return the paths at which an index may lie, best first."""
    name = f"{shard.name}.index.json"
    absolute = os.fsencode(str(shard) if isinstance(shard, RemotePath) else shard.absolute())
    cache = Path(platformdirs.user_cache_dir("diptych", appauthor=False), "shard-indexes")
    cached = cache / f"{hashlib.sha256(absolute).hexdigest()[:16]}-{name}"
    return [shard.with_name(name), cached] if beside and isinstance(shard, Path) else [cached]


def _may_write(folder: Path) -> bool:
    """Return whether the mode of a folder allows writing: a superuser could write against the mode."""
    return not folder.exists() or folder.stat().st_mode & 0o222 != 0


def _build_index(shard: Place, file: RandomAccess) -> ShardIndex:
    keys: list[str] = []
    rows: dict[str, list[tuple[int, int]]] = {part: [] for part in _PARTS}
    left_out = LeftOut()
    for key, members in _keyed(file):
        if key is None:
            for suffix in members:
                left_out.add(HIDDEN, f"{shard.name}#.{suffix}")
            continue
        parts: dict[str, Member] = {}
        for suffix in (*IMAGE_SUFFIXES, "json", "txt", "cls"):
            if suffix in members:
                if _PART_OF_SUFFIX[suffix] in parts:
                    left_out.add(SECOND, f"{shard.name}#{key}.{suffix}")
                parts.setdefault(_PART_OF_SUFFIX[suffix], members.pop(suffix))
        for suffix in members:
            left_out.add(_reason(suffix), f"{shard.name}#{key}.{suffix}")
        if "image" not in parts:
            for part in parts:
                left_out.add(ORPHAN, f"{shard.name}#{key} ({part})")
            continue
        keys.append(key)
        for part in _PARTS:
            member = parts.get(part)
            rows[part].append((member.offset, member.size) if member else (0, -1))
    if not keys:
        raise DataError(
            f"{shard}: no image in this archive; expected files such as 0001.jpg and 0001.json side by side"
        )
    return ShardIndex(
        path=shard,
        version=file.version,
        keys=Strings(keys),
        places={part: np.array(rows[part], dtype=np.int64) for part in _PARTS},
        left_out=left_out,
    )


def _reason(suffix: str) -> str:
    """Return why a member is not used. suffix: in lower case, what follows the first dot of its name."""
    if "." in suffix and suffix.rpartition(".")[2] in _PART_OF_SUFFIX:
        return "dots in the name: the key ends at the first one"
    return f"not an image: .{suffix}" if suffix else "not an image: no suffix"


def _keyed(file: RandomAccess) -> Iterator[tuple[str | None, dict[str, Member]]]:
    """Yield the members of each key by their suffix, in order; hidden files have the key None.

    The key is the path up to the first dot of the last part, the suffix is the rest (`a.b/0001.mask.png` has
    the key `a.b/0001` and the suffix `mask.png`).
    """
    seen: set[str] = set()
    current: str | None = None
    members: dict[str, Member] = {}
    for member in read_members(file):
        folder, slash, base = member.name.removeprefix("./").rpartition("/")
        stem, _, suffix = base.partition(".")
        if not stem:
            yield None, {suffix: member}
            continue
        key = folder + slash + stem
        where = f"{file.path} at byte {member.header:,}: {member.name!r}"
        if key != current:
            if key in seen:
                raise DataError(
                    f"{where}: the key {key!r} occurred before, and other keys followed; the files of a key "
                    "must lie next to each other: pack the shard again, sorted by name"
                )
            if current is not None:
                yield current, members
            seen.add(key)
            current, members = key, {}
        if suffix.lower() in members:
            raise DataError(f"{where}: this file occurs twice in the archive; pack the shard again")
        members[suffix.lower()] = member
    if current is not None:
        yield current, members


def _to_json(index: ShardIndex) -> str:
    return json.dumps(
        {
            "format_version": _FORMAT_VERSION,
            "kind": "diptych shard index",
            "size": index.version.size,
            "modified": index.version.modified,
            "left_out": index.left_out.to_json(),
            "places": {part: index.places[part].ravel().tolist() for part in _PARTS},
            "keys": list(index.keys),
        },
        separators=(",", ":"),
    )


def _read_index(home: Path, shard: Place, file: RandomAccess) -> ShardIndex | None:
    """Read the index at `home`; None if there is none, or if it does not match the shard."""
    try:
        kept: dict[str, Any] = json.loads(home.read_bytes())
        if (kept["format_version"], kept["size"], kept["modified"]) != (_FORMAT_VERSION, *file.version):
            return None
        index = ShardIndex(
            path=shard,
            version=file.version,
            keys=Strings(kept["keys"]),
            places={part: np.array(kept["places"][part], dtype=np.int64).reshape(-1, 2) for part in _PARTS},
            left_out=LeftOut.from_json(kept["left_out"]),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return index if _is_sound(index) else None


def _is_sound(index: ShardIndex) -> bool:
    """Return whether all offsets of an untrusted index lie inside the shard."""
    images = index.places["image"]
    return bool(
        len(index) > 0
        and len(set(index.keys)) == len(index)
        and all(len(places) == len(index) for places in index.places.values())
        and all((places[:, 0] >= 0).all() and (places[:, 1] >= -1).all() for places in index.places.values())
        and all((places.sum(axis=1) <= index.version.size).all() for places in index.places.values())
        and (images[:, 1] >= 0).all()
    )
