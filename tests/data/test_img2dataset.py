"""The three forms that img2dataset writes, with everything that lies beside them, read as they stand."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from diptych.data import Source, open_source
from diptych.errors import DataError
from tests.data.tar_files import png, write_tar

pytestmark = pytest.mark.usefixtures("user_cache")


def record(shard: int, row: int) -> dict[str, Any]:
    """The fields that img2dataset 1.47 writes of an image; of a failed one it keeps only the row of the table."""
    failed = row == 1
    return {
        "url": f"https://example.org/{shard}/{row}.png",
        "caption": f"picture {shard} {row}",
        "key": f"{shard:05}{row:04}",
        "status": "failed_to_download" if failed else "success",
        "error_message": "HTTP Error 404: Not Found" if failed else None,
        "width": None if failed else 4,
        "height": None if failed else 3,
        "exif": None if failed else "{}",
        "sha256": None if failed else "00",
    }


def write_side_files(folder: Path, shard: int, **more: Any) -> None:
    rows = [record(shard, row) for row in range(3)]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    parquet.write_table(pyarrow.table(columns | more), folder / f"{shard:05}.parquet")
    statistics = {"count": 3, "successes": 2, "failed_to_download": 1, "status_dict": {"success": 2}}
    (folder / f"{shard:05}_stats.json").write_text(json.dumps(statistics))


def members(shard: int) -> list[tuple[str, bytes]]:
    files = []
    for fields in (record(shard, row) for row in (0, 2)):
        key = fields["key"]
        files += [
            (f"{key}.png", png(shard)),
            (f"{key}.json", json.dumps(fields).encode()),
            (f"{key}.txt", fields["caption"].encode()),
        ]
    return files


def read_all(source: Source) -> list[tuple[str, ...]]:
    return [source[position].captions for position in range(len(source))]


EXPECTED = [("picture 0 0",), ("picture 0 2",), ("picture 1 0",), ("picture 1 2",)]


def test_shards_are_read_beside_their_side_files(tmp_path: Path) -> None:
    for shard in range(2):
        write_tar(tmp_path / f"{shard:05}.tar", members(shard))
        write_side_files(tmp_path, shard)
    source = open_source(tmp_path)
    assert read_all(source) == EXPECTED
    assert source[0].metadata["status"] == "success"
    assert "left out" not in source.describe()


def test_a_shard_that_was_not_finished_is_left_out_and_told(tmp_path: Path) -> None:
    for shard in range(3):
        write_tar(tmp_path / f"{shard:05}.tar", members(shard))
        if shard != 1:
            write_side_files(tmp_path, shard)
    (tmp_path / "00001.tar").write_bytes((tmp_path / "00001.tar").read_bytes()[:700])
    source = open_source(tmp_path)
    assert len(source) == 4
    assert "left out: 1 unfinished, without the _stats.json that img2dataset writes last" in source.describe()
    # Whoever names it gets it, or is told what is wrong with it.
    with pytest.raises(DataError, match="cut short"):
        open_source(tmp_path / "00001.tar")


def test_files_are_read_beside_their_side_files(tmp_path: Path) -> None:
    for shard in range(2):
        (tmp_path / f"{shard:05}").mkdir()
        for name, data in members(shard):
            (tmp_path / f"{shard:05}" / name).write_bytes(data)
        write_side_files(tmp_path, shard)
    source = open_source(tmp_path)
    assert read_all(source) == EXPECTED
    assert "that have no image" not in source.describe()


def test_parquet_is_read_without_the_rows_that_failed(tmp_path: Path) -> None:
    for shard in range(2):
        write_side_files(tmp_path, shard, png=pyarrow.array([png(shard), None, png(shard)], pyarrow.binary()))
    source = open_source(tmp_path)
    assert read_all(source) == EXPECTED
    assert source[2].image == png(1)
    assert len({source[position].key for position in range(4)}) == 2  # those of the images
    assert getattr(source, "parts", None) == (2, 2)
    assert source.describe().count("left out: 1 rows whose image was not downloaded") == 2
    assert read_all(open_source(f"{tmp_path}/*.parquet")) == EXPECTED
    assert read_all(open_source(tmp_path / "00001.parquet")) == EXPECTED[2:]


def test_parquet_of_which_nothing_was_downloaded_is_an_error(tmp_path: Path) -> None:
    rows = {"url": ["a"], "key": ["0"], "status": ["failed_to_download"], "caption": ["c"]}
    table = pyarrow.table(rows | {"jpg": pyarrow.array([None], pyarrow.binary())})
    parquet.write_table(table, tmp_path / "0.parquet")
    with pytest.raises(DataError, match="none of its 1 images was downloaded"):
        open_source(tmp_path / "0.parquet")
