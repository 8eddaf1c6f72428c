"""A job in pieces: they are the whole, a piece that is there is not made again, and none is taken for another."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.embed.embedding_files import ROW_GROUP, About, EmbeddingsFile, Part, Row, write_embeddings
from diptych.embed.embedding_pieces import Shard, join_shards, missing_shards, write_shard
from diptych.embed.source_rows import SkippedRow
from diptych.errors import DataError, SettingsError

DIM = 4
ABOUT: About = {"model": "tiny", "fingerprint": "f" * 64, "source": "photos", "source_fingerprint": "0" * 64}


def parts(positions: range, batch_size: int = 3) -> Iterator[Part]:
    """Every fifth row cannot be read."""
    for start in range(positions.start, positions.stop, batch_size):
        numbers = range(start, min(start + batch_size, positions.stop))
        good = [number for number in numbers if number % 5]
        yield Part(
            tuple(Row(f"/{n}", str(n), f"caption {n}" if n % 2 else None, None, f"{n:064x}") for n in good),
            np.array([[n, 1, 2, 3] for n in good], np.float32).reshape(-1, DIM),
            tuple(SkippedRow(n, f"/{n}", "unreadable image", "cut") for n in numbers if not n % 5),
        )


def make(out: Path, shard: Shard, rows: int, about: About = ABOUT) -> None:
    write_shard(out, shard, lambda: parts(shard.positions(rows)), dim=DIM, about=about)


def read(file: Path) -> tuple[list[Row], np.ndarray]:
    found = list(EmbeddingsFile(file).parts())
    return [row for part in found for row in part.rows], np.concatenate([part.vectors for part in found])


@given(rows=st.integers(0, 300), count=st.integers(1, 40))
def test_every_row_is_in_exactly_one_shard(rows: int, count: int) -> None:
    stretches = [Shard(index, count).positions(rows) for index in range(count)]
    assert [row for stretch in stretches for row in stretch] == list(range(rows))
    lengths = {len(stretch) for stretch in stretches}
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("count", [1, 3, 7, 30])
def test_the_pieces_together_are_what_one_process_writes(tmp_path: Path, count: int) -> None:
    """With 30 pieces of 23 rows, some have none."""
    whole = write_embeddings(tmp_path / "whole.parquet", parts(range(23)), about=ABOUT)
    out = tmp_path / "joined.parquet"
    for index in reversed(range(count)):
        make(out, Shard(index, count), 23)
        assert missing_shards(out, count) == list(range(index))
    assert join_shards(out, count) == whole
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"), check_metadata=True)
    assert EmbeddingsFile(out).skipped == {"unreadable image": 5}


def test_pieces_are_joined_into_an_array_too(tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    for index in range(2):
        make(out, Shard(index, 2), 23)
    join_shards(out, 2)
    rows = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    expected = [n for n in range(23) if n % 5]
    assert [int(row["key"]) for row in rows] == expected
    assert np.load(out)[:, 0].tolist() == expected


def test_a_piece_that_is_there_is_not_embedded_again(tmp_path: Path) -> None:
    out, shard = tmp_path / "x.parquet", Shard(1, 2)
    make(out, shard, 23)
    before = shard.file(out).read_bytes()

    def never() -> Iterator[Part]:
        raise AssertionError("embedded again")

    again = write_shard(out, shard, never, dim=DIM, about=ABOUT)
    assert (again.count, again.dim, dict(again.skipped)) == (10, DIM, {"unreadable image": 2})
    assert shard.file(out).read_bytes() == before


def test_a_piece_that_fails_leaves_nothing_and_the_others_stay(tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    make(out, Shard(0, 2), 23)

    def failing() -> Iterator[Part]:
        yield next(parts(range(23)))
        raise DataError("half way")

    with pytest.raises(DataError, match="half way"):
        write_shard(out, Shard(1, 2), failing, dim=DIM, about=ABOUT)
    assert [file.name for file in tmp_path.iterdir()] == ["x-00000-of-00002.parquet"]
    with pytest.raises(DataError, match=r"x-00001-of-00002\.parquet: no such file"):
        join_shards(out, 2)


@pytest.mark.parametrize("changed", ["fingerprint", "source_fingerprint"])
def test_pieces_of_other_models_or_data_are_refused(tmp_path: Path, changed: str) -> None:
    out, other = tmp_path / "x.parquet", ABOUT | {changed: "e" * 64}
    make(out, Shard(0, 2), 23)
    with pytest.raises(SettingsError, match=r"00000-of-00002\.parquet: was made with .*eeee"):
        make(out, Shard(0, 2), 23, other)
    make(out, Shard(1, 2), 23, other)
    with pytest.raises(SettingsError, match=r"00001-of-00002\.parquet: was made with"):
        join_shards(out, 2)
    assert not out.exists()


def test_pieces_without_one_row_are_an_error(tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    for index in range(2):
        write_shard(out, Shard(index, 2), lambda: parts(range(0, 1)), dim=DIM, about=ABOUT)
    with pytest.raises(DataError, match="unreadable image"):
        join_shards(out, 2)
    assert not out.exists()


def test_shards_are_counted_from_0() -> None:
    for index, count in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(SettingsError, match="the first shard is 0"):
            Shard(index, count)


def test_rows_are_read_back_in_bounded_pieces(tmp_path: Path) -> None:
    count = 2 * ROW_GROUP + 7
    rows = tuple(Row(f"/{n}", str(n), None, "label", None) for n in range(count))
    vectors = np.arange(count * DIM, dtype=np.float32).reshape(count, DIM)
    write_embeddings(tmp_path / "x.parquet", [Part(rows[:10], vectors[:10]), Part(rows[10:], vectors[10:])])
    assert pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(0).num_rows <= ROW_GROUP
    assert max(len(part.rows) for part in EmbeddingsFile(tmp_path / "x.parquet").parts()) <= ROW_GROUP
    found = read(tmp_path / "x.parquet")
    assert found[0] == list(rows)
    np.testing.assert_array_equal(found[1], vectors)


def test_a_file_that_is_no_embeddings_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"x\.parquet: is not a Parquet file of embeddings"):
        EmbeddingsFile(tmp_path / "x.parquet")
    table = pq.read_table(_written(tmp_path / "y.parquet"))
    pq.write_table(table.drop_columns("vector"), tmp_path / "z.parquet")
    with pytest.raises(DataError, match=r"z\.parquet: is not a Parquet file of embeddings"):
        EmbeddingsFile(tmp_path / "z.parquet")


def test_a_file_of_an_older_diptych_is_read(tmp_path: Path) -> None:
    """Without the column of hashes, and without the count of what was skipped."""
    table = pq.read_table(_written(tmp_path / "new.parquet")).drop_columns("sha256")
    table = table.replace_schema_metadata({b"diptych": json.dumps({"model": "tiny"})})
    pq.write_table(table, tmp_path / "old.parquet")
    old, new = (read(tmp_path / f"{name}.parquet") for name in ("old", "new"))
    assert old[0] == [dataclasses.replace(row, sha256=None) for row in new[0]]
    np.testing.assert_array_equal(old[1], new[1])


def _written(file: Path) -> Path:
    write_embeddings(file, parts(range(9)), about=ABOUT)
    return file
