"""Sources behind an address, on fsspec's file system in memory."""

import json
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pytest
from pyarrow import parquet

from diptych.data import Source, open_source
from diptych.data.files import places
from diptych.data.files.remote import RemoteFile, RemotePath
from diptych.data.sources import shards
from diptych.errors import DataError, SettingsError
from tests.data.tar_files import pairs, png, write_tar

ROOT = "memory://bucket"


@pytest.fixture
def bucket(user_cache: Path, tmp_path: Path) -> Iterator[Any]:
    """Two shards of three pairs each, a table of paths, and a table that holds its images."""
    system = fsspec.filesystem("memory")
    for number in range(2):
        path = write_tar(tmp_path / f"{number}.tar", pairs([f"{number}{row}" for row in range(3)]))
        system.pipe(f"/bucket/shards/{number}.tar", path.read_bytes())
    system.pipe("/bucket/images/a.png", png(1))
    rows = [{"image": "images/a.png", "caption": "here"}, {"image": "images/b.png", "caption": "gone"}]
    system.pipe("/bucket/t.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    system.pipe("/bucket/t.csv", b"image,caption\nimages/a.png,here\n")
    parquet.write_table(pyarrow.table({"image": [png(2)], "caption": ["inside"]}), tmp_path / "t.parquet")
    system.pipe("/bucket/tables/t.parquet", (tmp_path / "t.parquet").read_bytes())
    yield system
    system.rm("/bucket", recursive=True)
    places._open.cache_clear()


def captions(source: Source) -> list[tuple[str, ...]]:
    return [source[position].captions for position in range(len(source))]


ALL = [("a 00",), ("a 01",), ("a 02",), ("a 10",), ("a 11",), ("a 12",)]


@pytest.mark.parametrize(
    "place", ["shards", "shards/", "shards/*.tar", "shards/{0..1}.tar", "shards/{0,1}.tar"]
)
def test_shards_behind_an_address_are_those_on_disk(bucket: Any, tmp_path: Path, place: str) -> None:
    source = open_source(f"{ROOT}/{place}")
    assert captions(source) == ALL
    local = open_source([tmp_path / "0.tar", tmp_path / "1.tar"])
    assert [source[row] for row in range(6)] == [local[row] for row in range(6)]
    assert source.fingerprint == local.fingerprint


def test_the_index_is_kept_in_the_users_cache_and_read_again(
    bucket: Any, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_source(f"{ROOT}/shards/0.tar")
    (index,) = user_cache.rglob("*.index.json")
    assert [path for path in bucket.find("/bucket") if "index" in path] == []
    monkeypatch.setattr(shards, "_build_index", None)
    assert captions(open_source(f"{ROOT}/shards/0.tar")) == ALL[:3]
    # Another file in its place has another version, and is indexed anew.
    bucket.pipe("/bucket/shards/0.tar", bucket.cat("/bucket/shards/1.tar"))
    with pytest.raises(TypeError):
        open_source(f"{ROOT}/shards/0.tar")
    assert index.exists()


def test_a_file_that_is_replaced_while_it_is_read_is_an_error(bucket: Any) -> None:
    source = open_source(f"{ROOT}/shards/0.tar")
    bucket.pipe("/bucket/shards/0.tar", bucket.cat("/bucket/shards/1.tar") + bytes(512))
    places._open.cache_clear()
    with pytest.raises(DataError, match="the file changed while it was in use"):
        source[0]


def test_threads_read_what_one_reads(bucket: Any) -> None:
    source = open_source(f"{ROOT}/shards")
    expected = [source[row] for row in range(6)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(source.__getitem__, list(range(6)) * 20))
    assert found == expected * 20


def test_a_remote_source_travels_to_another_process(bucket: Any) -> None:
    for place in ("shards", "t.csv", "tables/t.parquet"):
        source = open_source(f"{ROOT}/{place}")
        copy = pickle.loads(pickle.dumps(source))
        assert copy[0] == source[0]
        assert copy.fingerprint == source.fingerprint


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
def test_images_of_a_table_lie_beside_it(bucket: Any, name: str) -> None:
    source = open_source(f"{ROOT}/{name}", caption_column="caption")
    assert (source[0].image, source[0].captions) == (png(1), ("here",))
    assert "missing" not in source.describe()


def test_an_image_that_is_not_there_is_an_error_of_its_row_alone(bucket: Any) -> None:
    with pytest.raises(DataError, match=r"images/b\.png: cannot be read"):
        open_source(f"{ROOT}/t.jsonl")[1]


@pytest.mark.parametrize("place", ["tables/t.parquet", "tables/*.parquet", "tables"])
def test_parquet_behind_an_address_is_read(bucket: Any, place: str) -> None:
    source = open_source(f"{ROOT}/{place}")
    assert (source[0].image, source[0].captions) == (png(2), ("inside",))


def test_one_request_serves_the_files_of_an_example(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(f"{ROOT}/shards/0.tar")
    asked: list[tuple[int, int]] = []
    fetch = RemoteFile._fetch

    def noted(self: RemoteFile, offset: int, count: int) -> bytes:
        asked.append((offset, count))
        return fetch(self, offset, count)

    monkeypatch.setattr(RemoteFile, "_fetch", noted)
    assert source[1].captions == ("a 01",)
    assert len(asked) == 1


def test_any_range_of_a_remote_file_is_that_of_the_bytes(bucket: Any) -> None:
    data = bucket.cat("/bucket/shards/0.tar")
    file = RemoteFile(RemotePath(f"{ROOT}/shards/0.tar"), block=100)
    for offset, count in [(0, 10), (5, 90), (50, 400), (449, 2), (len(data) - 3, 10), (len(data), 5), (7, 0)]:
        assert file.read(offset, count) == data[offset : offset + count]


def test_a_server_that_ignores_ranges_is_an_error(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RemoteFile(RemotePath(f"{ROOT}/shards/0.tar"), block=100)
    whole = bucket.cat("/bucket/shards/0.tar")
    monkeypatch.setattr(type(bucket), "cat_file", lambda *_, **__: whole)
    with pytest.raises(DataError, match="sends the whole file when asked for a part"):
        file.read(0, 10)


def test_what_is_not_there_is_an_error(bucket: Any) -> None:
    bucket.pipe("/bucket/words/a.txt", b"words")
    for place, message in [
        ("none.tar", r"memory://bucket/none\.tar: no such file"),
        ("none/*.tar", "no file matches this pattern"),
        ("shards/{0..2}.tar", r"memory://bucket/shards/2\.tar: no such file"),
        ("words", r"no \.tar or \.parquet in this folder"),
    ]:
        with pytest.raises(DataError, match=message):
            open_source(f"{ROOT}/{place}")
    with pytest.raises(SettingsError, match="not a table"):
        open_source(f"{ROOT}/shards", caption_column="x")


def test_a_protocol_that_is_unknown_or_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="Protocol not known: foo"):
        open_source("foo://a/b.tar")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(
        DataError, match="Install s3fs to access S3; install the package that is named here with pip"
    ):
        open_source("s3://a/b.tar")


def test_addresses_have_the_parts_of_paths() -> None:
    place = RemotePath("s3://bucket/a/b.tar.gz")
    assert (place.name, place.stem, place.suffix) == ("b.tar.gz", "b.tar", ".gz")
    assert str(place.parent / "c.png") == "s3://bucket/a/c.png"
