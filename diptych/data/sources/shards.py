"""Tar shards in the webdataset layout, read at random through an index of byte offsets.

A shard holds, for each key, one image (`KEY.jpg`, `KEY.webp`, ...) and its words: `KEY.json` (an object with
`captions`, `caption`, `tags`, `label`, `code`) or `KEY.txt` (one caption a line), and perhaps `KEY.cls` (the
label). What img2dataset writes is read as it stands. The files of a key lie next to each other.

The index is built once from the headers and kept beside the shard as `SHARD.tar.index.json`, or in the user's cache
folder where the shard's folder cannot be written or is on a server. It is a cache: it may be deleted at any time, and
one that does not match its shard is built again.
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

_FORMAT_VERSION = 2  # 1 named nothing of what was left out
_PARTS = ("image", "json", "text", "label")
_PART_OF_SUFFIX = {"json": "json", "txt": "text", "cls": "label"} | dict.fromkeys(IMAGE_SUFFIXES, "image")

SECOND = "second image of its key"

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardIndex:
    """Where the files of each example lie in one shard.

    keys: one an example, in the order of the shard.
    places: for `image`, `json`, `text` and `label`, an array (examples, 2) of offset and size in bytes; the
        size is -1 where an example has no such file.
    version: of the shard; an index of another is out of date.
    left_out: keys that have files but no image, which are not examples; and members that belong to no example: hidden
        files and unknown suffixes.
    """

    path: Place
    version: Version
    keys: Strings
    places: dict[str, Offsets]
    left_out: LeftOut

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, part: str, position: int) -> bytes | None:
        """The bytes of one file of an example, or None where it has none."""
        offset, size = self.places[part][position].tolist()
        return None if size < 0 else read_range(self.path, offset, size, self.version)

    def digest(self) -> str:
        """SHA-256 over the shard's name, size and layout, but not over what its files hold."""
        digest = hashlib.sha256(f"{self.path.name}\0{self.version.size}\0".encode("utf-8", "surrogatepass"))
        for key in self.keys:
            digest.update(key.encode("utf-8", "surrogatepass") + b"\0")
        for part in _PARTS:
            digest.update(self.places[part].astype("<i8").tobytes())
        return digest.hexdigest()


def index_shard(shard: Place, *, beside: bool = True) -> ShardIndex:
    """The index of a shard: read if there is one that matches, else built and kept.

    beside: keep it beside the shard if that folder can be written; otherwise only in the user's cache folder.

    Raises:
        DataError: the shard is damaged or cut short, holds links or devices, holds one key twice or in two
            places, or holds no image at all; the message names the file and the offset.
    """
    try:
        file = open_to_scan(shard)
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror})") from None
    homes = _homes(shard, beside)
    for home in homes:
        index = _read_index(home, shard, file)
        if index is not None:
            return index
    index = _build_index(shard, file)
    for home in homes:
        if not _may_write(home.parent):
            continue
        # A cache that cannot be written costs time at the next start, nothing else.
        with contextlib.suppress(OSError):
            home.parent.mkdir(parents=True, exist_ok=True)
            write_text(home, _to_json(index))
            break
    return index


class ShardSource:
    """Examples of one or more shards, in the order of the list.

    unfinished: shards that were left out because whoever wrote them was not done, to be told.
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
        """The number of examples of each shard: reads within a part are near each other on the disk."""
        return tuple(len(shard) for shard in self._shards)

    @property
    def fingerprint(self) -> str:
        """Changes when shards are added, removed, renamed, reordered or packed anew."""
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
        # Keys often start anew in every shard. Those of a pack are row numbers: the source's own stay when rows go.
        unique = key if len(self._shards) == 1 else f"{shard.path.stem}/{key}"
        packed = fields.get("source_key")
        unique = packed if isinstance(packed, str) and packed else unique
        return example_from_record(unique, image, fields, f"{where}, .json", text)

    @property
    def left_out(self) -> LeftOut:
        """What is in the shards and not used, by reason."""
        found = LeftOut()
        found.add("unfinished shard, without _stats.json", count=self._unfinished)
        return all_left_out([found, *(shard.left_out for shard in self._shards)])

    def describe(self) -> str:
        """What was found, and what was left out, in a few lines."""
        count = len(self._shards)
        size = sum(shard.version.size for shard in self._shards)
        shards = "1 tar shard" if count == 1 else f"{count:,} tar shards"
        lines = [f"{self.name}: {len(self):,} examples in {shards} ({size / 1e6:,.1f} MB)"]
        if self._unfinished:
            lines.append(
                f"left out: {self._unfinished:,} unfinished, without the _stats.json that img2dataset writes last"
            )
        if found := all_left_out(shard.left_out for shard in self._shards):
            lines.append(f"left out: {'; '.join(found.lines())}")
        return "\n".join(lines)


def _homes(shard: Place, beside: bool) -> list[Path]:
    """Where an index may be, best first."""
    name = f"{shard.name}.index.json"
    absolute = os.fsencode(str(shard) if isinstance(shard, RemotePath) else shard.absolute())
    cache = Path(platformdirs.user_cache_dir("diptych", appauthor=False), "shard-indexes")
    cached = cache / f"{hashlib.sha256(absolute).hexdigest()[:16]}-{name}"
    return [shard.with_name(name), cached] if beside and isinstance(shard, Path) else [cached]


def _may_write(folder: Path) -> bool:
    """Whether a folder is meant to be written, by its mode: a superuser could, whatever the mode says."""
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
    """Why a member is not used. suffix: in small letters, what follows the first dot of its name."""
    if "." in suffix and suffix.rpartition(".")[2] in _PART_OF_SUFFIX:
        return "dots in the name: the key ends at the first one"
    return f"not an image: .{suffix}" if suffix else "not an image: no suffix"


def _keyed(file: RandomAccess) -> Iterator[tuple[str | None, dict[str, Member]]]:
    """The members of each key by their suffix, in order; hidden files come under the key None.

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
                    f"{where}: the key {key!r} came up before and was followed by another; "
                    "the files of a key must lie next to each other: pack the shard again, sorted by name"
                )
            if current is not None:
                yield current, members
            seen.add(key)
            current, members = key, {}
        if suffix.lower() in members:
            raise DataError(f"{where}: this file is in the archive twice; pack the shard again")
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
    """The index kept at `home`, or None where there is none that is of this shard as it is now."""
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
    """Whether every place lies inside the shard: the file may have been changed by anything."""
    images = index.places["image"]
    return bool(
        len(index) > 0
        and len(set(index.keys)) == len(index)
        and all(len(places) == len(index) for places in index.places.values())
        and all((places[:, 0] >= 0).all() and (places[:, 1] >= -1).all() for places in index.places.values())
        and all((places.sum(axis=1) <= index.version.size).all() for places in index.places.values())
        and (images[:, 1] >= 0).all()
    )
