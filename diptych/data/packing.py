"""Write any source as tar shards with their indexes: the form that training reads fastest.

A pack is a folder:

    00000.tar, 00001.tar, ...       KEY.jpg (or .png, ...) and KEY.json for every example, in the order of the source
    00000.tar.index.json, ...       see shards.py
    pack.json                       the source, the settings, the finished shards, and the dropped rows with reasons

A shard appears whole or not at all, and `pack.json` is written after it. So an interrupted `pack` continues behind its
last shard, and ends with the same bytes.
"""

import contextlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from diptych.atomic import atomic_write, sha256_of, write_text
from diptych.data.examination import Failure, Finding, examine
from diptych.data.example import Example
from diptych.data.images.decoding import open_image, read_header, to_rgb
from diptych.data.left_out import LeftOut
from diptych.data.reasons import NO_CAPTION
from diptych.data.sources.opening import Source
from diptych.data.sources.shards import index_shard
from diptych.errors import DataError, SettingsError

_FORMAT_VERSION = 1
_MANIFEST = "pack.json"
_SUFFIX = {"JPEG": "jpg", "TIFF": "tif"}  # of a format; any other is its own suffix, in lower case
_QUALITY = 90  # of JPEG: the usual choice for training at a fixed size
_LOSSY = ("JPEG", "WebP", "AVIF", "HEIC", "TIFF")  # formats of photographs, which JPEG keeps well

Encoded = tuple[bytes, str]  # an image file, and its suffix


@dataclass(frozen=True)
class PackedShard:
    """A shard of a pack. start, stop: the rows of the source that it covers. dropped: the bad ones among them."""

    name: str
    start: int
    stop: int
    examples: int
    size: int  # bytes
    sha256: str
    dropped: list[dict[str, Any]]


@dataclass(frozen=True)
class Pack:
    """The content of `pack.json`, without its format version."""

    source: str
    fingerprint: str
    total: int  # rows of the source
    settings: dict[str, Any]
    shards: list[PackedShard] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Count the rows of the source that are packed or dropped."""
        return self.shards[-1].stop if self.shards else 0

    @property
    def examples(self) -> int:
        return sum(shard.examples for shard in self.shards)

    @property
    def reasons(self) -> dict[str, int]:
        """Count the dropped rows by reason, the most frequent first."""
        reasons = (row["reason"] for shard in self.shards for row in shard.dropped)
        return dict(Counter(reasons).most_common())

    @property
    def left_out(self) -> LeftOut:
        """Return the dropped rows by reason, with the first keys of each."""
        found = LeftOut()
        for shard in self.shards:
            for row in shard.dropped:
                found.add(row["reason"], row["key"] or f"row {row['position'] + 1:,}")
        return found


def pack_source(
    source: Source,
    out: Path,
    *,
    shard_bytes: int = 256_000_000,
    resize: int | None = None,
    workers: int = 2,
    need_caption: bool = True,
    progress: Callable[[int], None] = lambda _: None,
) -> Pack:
    """Write a source as tar shards into the folder `out`, or continue an interrupted pack there.

    shard_bytes: the size in bytes after which the next shard begins.
    resize: the length in pixels to which a longer shorter side is reduced; smaller images keep their files.
    need_caption: whether to drop examples without a caption.
    progress: receives the number of rows done since the last call, those of an earlier attempt included.

    Raises:
        SettingsError: `out` holds something else, or a pack of another source or with other settings.
        DataError: the source has no example that can be used.
    """
    settings = {"shard_bytes": shard_bytes, "resize": resize, "need_caption": need_caption}
    pack = _begin(out, Pack(source.name, source.fingerprint, len(source), settings))
    progress(pack.done)
    rows = examine(
        source,
        lambda example: _encode(example, resize),
        positions=range(pack.done, len(source)),
        workers=workers,
        need_caption=need_caption,
    )
    with contextlib.closing(rows):
        while pack.done < pack.total:
            path = out / f"{len(pack.shards):05}.tar"
            shard = _write_shard(path, rows, start=pack.done, shard_bytes=shard_bytes, progress=progress)
            pack.shards.append(shard)
            _keep(out, pack)
    if not pack.examples:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in pack.reasons.items())
        remedy = (
            "; --allow-no-caption (need_caption=False) packs images alone"
            if NO_CAPTION in pack.reasons
            else ""
        )
        raise DataError(
            f"{source.name}: nothing to pack: none of its {pack.total:,} rows can be used ({reasons}){remedy}"
        )
    return pack


def read_pack(folder: Path) -> Pack | None:
    """Read the `pack.json` of a folder; None if there is none that can be read."""
    try:
        values = json.loads((folder / _MANIFEST).read_bytes())
        if values.pop("format_version") != _FORMAT_VERSION or values.pop("kind") != "diptych pack":
            return None
        shards = [PackedShard(**shard) for shard in values.pop("shards")]
        return Pack(**values, shards=shards)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _begin(out: Path, wanted: Pack) -> Pack:
    """Return the pack to continue: the one in `out` up to its first missing shard, else a new one."""
    for leftover in [*out.glob(f".{_MANIFEST}.*.tmp"), *out.glob(".*.tar.*.tmp")]:
        leftover.unlink()
    found = read_pack(out)
    if found is None:
        strangers = list(out.iterdir()) if out.exists() else []
        if strangers:
            raise SettingsError(
                f"{out}: holds other files, such as {min(strangers).name}; name a new folder with --out"
            )
        out.mkdir(parents=True, exist_ok=True)
        _keep(out, wanted)
        return wanted
    what = [name for name in ("fingerprint", "settings") if getattr(found, name) != getattr(wanted, name)]
    if what:
        raise SettingsError(
            f"{out}: holds another pack, of {found.source} with {found.settings}, which differs in "
            f"{' and '.join(what)}; name a new folder with --out"
        )
    whole = []
    for shard in found.shards:
        path = out / shard.name
        if shard.examples and not (path.is_file() and path.stat().st_size == shard.size):
            break
        whole.append(shard)
    return Pack(wanted.source, wanted.fingerprint, wanted.total, wanted.settings, whole)


def _write_shard(
    path: Path,
    rows: Iterator[Finding[Encoded] | Failure],
    *,
    start: int,
    shard_bytes: int,
    progress: Callable[[int], None],
) -> PackedShard:
    dropped: list[dict[str, Any]] = []
    examples = 0
    stop = start
    with (
        atomic_write(path) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for row in rows:
            stop += 1
            progress(1)
            if isinstance(row, Failure):
                dropped.append(asdict(row))
                continue
            image, suffix = row.found
            record = json.dumps(_record(row.example), default=_as_text).encode("ascii")
            _add(archive, f"{row.position:010}.{suffix}", image)
            _add(archive, f"{row.position:010}.json", record)
            examples += 1
            if archive.offset >= shard_bytes:
                break
    if not examples:
        # The last rows of the source were all bad: an empty archive is not a shard.
        path.unlink()
        return PackedShard(path.name, start, stop, 0, 0, "", dropped)
    index_shard(path)
    return PackedShard(path.name, start, stop, examples, path.stat().st_size, sha256_of(path), dropped)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    # Without times and owners the same source gives the same bytes.
    header = tarfile.TarInfo(name)
    header.size = len(data)
    archive.addfile(header, io.BytesIO(data))


def _record(example: Example) -> dict[str, Any]:
    """Return an example as `example_from_record` reads it, with the key that it had in its source."""
    words: dict[str, Any] = {"captions": list(example.captions), "tags": list(example.tags)}
    words |= {"label": example.label, "code": example.group}
    kept = {name: value for name, value in words.items() if value}
    # A pack that is packed again keeps the first keys.
    return {"source_key": example.key, **example.metadata, **kept}


def _as_text(value: Any) -> str | None:
    """Convert metadata that JSON lacks, such as dates, to text; bytes, which may be further images, to None."""
    return None if isinstance(value, bytes) else str(value)


def _encode(example: Example, resize: int | None) -> Encoded:
    """Return the file of an image, unchanged or reduced, after decoding its pixels once."""
    header = read_header(example.image)
    image = open_image(example.image)
    suffix = _SUFFIX.get(header.format, header.format.lower())
    if resize is None or min(image.size) <= resize:
        to_rgb(image)  # raises for pixels of unknown range
        data = example.image if isinstance(example.image, bytes) else example.image.read_bytes()
        return data, suffix
    scale = resize / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    clear = image.has_transparency_data
    small = (image.convert("RGBA") if clear else to_rgb(image)).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if header.format in _LOSSY and not clear:
        small.save(file, "JPEG", quality=_QUALITY)
        return file.getvalue(), "jpg"
    small.save(file, "PNG")
    return file.getvalue(), "png"


def _keep(out: Path, pack: Pack) -> None:
    values = {"format_version": _FORMAT_VERSION, "kind": "diptych pack", **asdict(pack)}
    write_text(out / _MANIFEST, json.dumps(values, indent=1) + "\n")
