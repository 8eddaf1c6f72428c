"""Write and read files of embeddings: Parquet, or a NumPy array with a list of its rows beside it."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.atomic import atomic_write, escaped
from diptych.data.left_out import LeftOut, all_left_out
from diptych.data.sources.opening import Source
from diptych.data.sources.stray_bytes import original, stored
from diptych.embed.encode import Progress, Vectors
from diptych.embed.source_rows import EmbeddedBatch, SkippedRow, none_readable
from diptych.errors import DataError, MissingExtraError, SettingsError

# The rows of a Parquet file that are read and written at once: 8 MB of vectors of 512 dimensions.
ROW_GROUP = 4096

About = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of one embedding, without its vector."""

    uri: str
    key: str
    caption: str | None  # the first one
    label: str | None
    sha256: str | None  # of the image's file, if it was requested


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows with their vectors (len(rows), dim) float32, and the skipped rows among them."""

    rows: tuple[Row, ...]
    vectors: Vectors
    skipped: tuple[SkippedRow, ...] = ()


@dataclass(frozen=True, slots=True)
class EmbeddingSummary:
    """The size of a file of embeddings. skipped: the rows without an embedding, by reason."""

    count: int
    dim: int
    skipped: LeftOut


def part_of(batch: EmbeddedBatch) -> Part:
    """Return the rows and vectors of a batch for a file."""
    hashes = batch.sha256 or (None,) * len(batch.uris)
    rows = tuple(
        Row(uri, example.key, example.captions[0] if example.captions else None, example.label, sha256)
        for uri, example, sha256 in zip(batch.uris, batch.examples, hashes, strict=True)
    )
    return Part(rows, batch.vectors, batch.skipped)


def about(model: str, fingerprint: str, source: Source) -> About:
    """Describe the model and the data of all rows of a file."""
    return {
        "model": model,
        "fingerprint": fingerprint,
        "source": source.name,
        "source_fingerprint": source.fingerprint,
    }


def write_embeddings(
    path: str | Path,
    parts: Iterable[Part],
    *,
    about: About | None = None,
    progress: Progress | None = None,
    left_out: Mapping[str, int] | None = None,
) -> EmbeddingSummary:
    """Write embeddings to a `.parquet` or an `.npy` file, which appears only when it is whole.

    Parquet: columns `uri`, `key`, `caption` (the first one, or null), `label` (or null), `sha256` (of the image's file,
    or null) and `vector` (a list of embed_dim float32), with `about` in the file's metadata under `diptych`. NumPy: an
    array (n, embed_dim) of float32, and beside it `NAME.jsonl` with the other columns, row for row. File names that
    are not UTF-8 are stored as in `diptych.data.sources.stray_bytes`. The rows that `parts` skip are added to
    `left_out`.

    Raises:
        SettingsError: the name has another ending, or its folder does not exist.
        DataError: no image could be read; no file is written.
        MissingExtraError: Parquet without pyarrow.
    """
    target = Path(path)
    check_name(target)
    skipped = all_left_out([] if left_out is None else [left_out])
    good = noting(_not_empty(parts), skipped, progress)
    if target.suffix == ".npy":
        count, dim = _write_npy(target, good)
    else:
        first = next(good)
        count, dim = write_parquet(target, _begun(first, good), first.vectors.shape[1], about or {}, skipped)
    return EmbeddingSummary(count, dim, skipped)


def check_name(target: Path) -> None:
    """Check the name of a file of embeddings. Raises SettingsError for another ending or a missing folder."""
    if target.suffix not in (".parquet", ".npy"):
        raise SettingsError(f"{target}: expected a file name that ends in .parquet or .npy")
    if not target.parent.is_dir():
        raise SettingsError(f"{target}: the folder {target.parent} does not exist; make it first")


def noting(parts: Iterable[Part], skipped: LeftOut, progress: Progress | None) -> Iterator[Part]:
    """Yield the parts that have rows; count their skipped rows in `skipped`, and report all rows to `progress`."""
    for part in parts:
        for row in part.skipped:
            skipped.add(row.reason, row.uri)
        if part.rows:
            yield part
        if progress is not None:
            progress(len(part.rows) + len(part.skipped))


def write_parquet(
    target: Path, parts: Iterable[Part], dim: int, about: About, skipped: LeftOut
) -> tuple[int, int]:
    """Write a Parquet file, possibly without rows. Returns the number of rows, and of dimensions.

    skipped: written to the metadata of the file after `parts` have ended.
    """
    pa, pq = _pyarrow()
    fields = [pa.field(name, pa.string()) for name in Row.__slots__]
    schema = pa.schema(
        [*fields, pa.field("vector", pa.list_(pa.float32(), dim))], metadata={"diptych": json.dumps(about)}
    )
    count = 0
    with atomic_write(target) as file, contextlib.closing(pq.ParquetWriter(file, schema)) as writer:
        for rows, vectors in _row_groups(parts):
            arrays = [
                pa.array([_column(getattr(row, name)) for row in rows], pa.string()) for name in Row.__slots__
            ]
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim))
            writer.write_batch(pa.record_batch(arrays, schema=schema), row_group_size=ROW_GROUP)
            count += len(rows)
        writer.add_key_value_metadata(
            {
                "diptych.skipped": json.dumps(dict(skipped)),
                "diptych.left_out": json.dumps(skipped.to_json()),
            }
        )
    return count, dim


class EmbeddingsFile:
    """A Parquet file of embeddings, as `write_embeddings` makes it.

    Raises:
        DataError: it is missing, damaged, or not such a file.
    """

    def __init__(self, path: Path) -> None:
        pa, pq = _pyarrow()
        try:
            self._file = pq.ParquetFile(path)
            metadata = self._file.metadata.metadata or {}
            self.about: About = json.loads(metadata[b"diptych"])
            self.skipped: LeftOut = _skipped_of(metadata)
            self.dim: int = self._file.schema_arrow.field("vector").type.list_size
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; write one: diptych embed SOURCE --out {path}") from None
        except (OSError, ValueError, KeyError, AttributeError, pa.ArrowException) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"{path}: is not a Parquet file of embeddings ({reason}); write one: diptych embed SOURCE --out {path}"
            ) from None
        self.path = path

    def __len__(self) -> int:
        count: int = self._file.metadata.num_rows
        return count

    def parts(self) -> Iterator[Part]:
        """Yield every row, some thousands at a time."""
        for found in self._file.iter_batches(batch_size=ROW_GROUP):
            columns = [
                found.column(name).to_pylist() if name in found.schema.names else [None] * found.num_rows
                for name in Row.__slots__
            ]
            names = [[value and original(value) for value in column] for column in columns]
            rows = tuple(Row(*values) for values in zip(*names, strict=True))
            yield Part(rows, found.column("vector").flatten().to_numpy().reshape(-1, self.dim))

    def close(self) -> None:
        self._file.close()


def _skipped_of(metadata: Mapping[bytes, bytes]) -> LeftOut:
    """Read the skipped rows from the metadata of a file; files of earlier versions have only counts."""
    if b"diptych.left_out" in metadata:
        return LeftOut.from_json(json.loads(metadata[b"diptych.left_out"]))
    return all_left_out([json.loads(metadata.get(b"diptych.skipped", b"{}"))])


def _not_empty(parts: Iterable[Part]) -> Iterator[Part]:
    count, skipped = 0, list[SkippedRow]()
    for part in parts:
        count += len(part.rows)
        skipped += part.skipped
        yield part
    if not count:
        raise DataError(none_readable(skipped))


def _begun(first: Part, rest: Iterator[Part]) -> Iterator[Part]:
    yield first
    yield from rest


def _row_groups(parts: Iterable[Part]) -> Iterator[tuple[list[Row], Vectors]]:
    """Join parts into row groups: a row group per batch would make large files slow to open."""
    rows: list[Row] = []
    vectors: list[Vectors] = []
    for part in parts:
        rows += part.rows
        vectors.append(part.vectors)
        if len(rows) >= ROW_GROUP:
            yield rows, np.concatenate(vectors)
            rows, vectors = [], []
    if rows:
        yield rows, np.concatenate(vectors)


def _write_npy(target: Path, parts: Iterator[Part]) -> tuple[int, int]:
    count, dim = 0, 0
    header = {"descr": "<f4", "fortran_order": False}
    # The list of rows is in place before the array that needs it.
    with atomic_write(target) as file, atomic_write(target.with_suffix(".jsonl")) as lines:
        # numpy pads the header so that the number of rows can grow: the header is written again at the end.
        for part in parts:
            if not count:
                dim = part.vectors.shape[1]
                np.lib.format.write_array_header_1_0(file, header | {"shape": (0, dim)})
            file.write(part.vectors.astype("<f4", copy=False).tobytes())
            lines.writelines(
                escaped(json.dumps(asdict(row), ensure_ascii=False)) + b"\n" for row in part.rows
            )
            count += len(part.rows)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (count, dim)})
    return count, dim


def _column(text: str | None) -> str | None:
    return None if text is None else stored(text)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional
        import pyarrow.parquet as pq  # noqa: PLC0415 - optional
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "a Parquet file of embeddings") from None
    return pa, pq
