import io
import json
import multiprocessing
import os
import pickle
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.data.example import Example
from diptych.data.sources import shards
from diptych.data.sources.shards import ShardSource, index_shard
from diptych.data.sources.storage import OpenFile
from diptych.data.sources.tar import read_members
from diptych.errors import DataError
from tests.data.tar_files import pairs, png, write_tar

pytestmark = pytest.mark.usefixtures("user_cache")


def source(*paths: Path) -> ShardSource:
    return ShardSource(paths, name="shards")


def read_all(shard: ShardSource) -> list[Example]:
    return [shard[position] for position in range(len(shard))]


def add(path: Path, kind: bytes, name: str = "0001.png", **attributes: Any) -> Path:
    """An archive whose only member is of one kind."""
    with tarfile.open(path, "w") as archive:
        header = tarfile.TarInfo(name)
        header.type = kind
        for attribute, value in attributes.items():
            setattr(header, attribute, value)
        archive.addfile(header)
    return path


# --- what is read -----------------------------------------------------------------------------------------


def test_an_example_has_the_words_of_its_record(tmp_path: Path) -> None:
    record = {
        "captions": ["a red fish", "fish"],
        "caption": "fish",
        "tags": ["red", "sea"],
        "code": "1F41F",
        "label": "fish",
        "vendor": "noto",
        "author": "someone",
    }
    path = write_tar(tmp_path / "a.tar", [("x/7.png", png()), ("x/7.json", json.dumps(record).encode())])
    (example,) = read_all(source(path))
    assert example == Example(
        key="x/7",
        image=png(),
        captions=("a red fish", "fish"),
        tags=("red", "sea"),
        label="fish",
        group="1F41F",
        metadata={"vendor": "noto", "author": "someone"},
    )


def test_img2dataset_output_is_read_as_it_stands(tmp_path: Path) -> None:
    record = {"caption": "two cats", "url": "http://a/b.jpg", "key": "000000001", "status": "success"}
    members = [
        ("000000001.jpg", b"jpeg bytes"),
        ("000000001.txt", b"two cats"),
        ("000000001.json", json.dumps(record).encode()),
    ]
    (example,) = read_all(source(write_tar(tmp_path / "00000.tar", members)))
    assert (example.key, example.image, example.captions) == ("000000001", b"jpeg bytes", ("two cats",))
    assert example.metadata["status"] == "success"


def test_captions_come_from_text_when_there_is_no_record(tmp_path: Path) -> None:
    members = [
        ("1.jpg", b"image"),
        ("1.txt", "\ufeffa cat\r\n\r\n  a tom \u2028 cat ".encode()),
        ("1.cls", b"cat\n"),
    ]
    (example,) = read_all(source(write_tar(tmp_path / "a.tar", members)))
    assert example.captions == ("a cat", "a tom \u2028 cat")
    assert example.label == "cat"


def test_keys_end_at_the_first_dot_of_the_last_part(tmp_path: Path) -> None:
    members = [("./v1.5/a.png", png(1)), ("./v1.5/a.mask.png", png(2)), ("v1.6/a.PNG", png(3))]
    first, second = read_all(source(write_tar(tmp_path / "a.tar", members)))
    assert (first.key, first.image) == ("v1.5/a", png(1))
    assert (second.key, second.image) == ("v1.6/a", png(3))


def test_every_member_is_read_or_counted_as_left_out(tmp_path: Path) -> None:
    members = [
        *pairs(["1"]),
        ("2.json", b"{}"),
        ("._1.png", b"apple"),
        (".DS_Store", b"x"),
        ("3.jpg", b"i"),
        ("3.npy", b"n"),
    ]
    index = index_shard(write_tar(tmp_path / "a.tar", members))
    assert list(index.keys) == ["1", "3"]
    used = sum(int((places[:, 1] >= 0).sum()) for places in index.places.values())
    assert index.left_out == {"caption file without an image": 1, "hidden": 2, "not an image: .npy": 1}
    assert index.left_out.first("hidden") == ("a.tar#._1.png", "a.tar#.DS_Store")
    assert used + index.left_out.total == len(members)
    text = source(tmp_path / "a.tar").describe()
    assert "2 examples in 1 tar shard" in text
    assert "1 (caption file without an image): a.tar#2 (json)" in text
    assert "2 (hidden)" in text


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_the_standard_library(tmp_path: Path, form: int) -> None:
    folder = "f" * 60 + "/" + "g" * 60
    names = ["1.png", f"{folder}/2.png"]
    if form != tarfile.USTAR_FORMAT:
        names += ["long/" + "n" * 300 + "/3.png", "ümläut/4 \N{CAT}.png"]
    members = [(name, os.urandom(17 * number)) for number, name in enumerate(names)]
    path = write_tar(tmp_path / "a.tar", members, form)
    with tarfile.open(path) as archive:
        expected = [(member.name, member.offset, member.offset_data, member.size) for member in archive]
    file = OpenFile(path)
    found = list(read_members(file))
    assert [(member.name, member.header, member.offset, member.size) for member in found] == expected
    assert [file.read(member.offset, member.size) for member in found] == [data for _, data in members]


def test_any_name_is_read_as_the_standard_library_reads_it(tmp_path: Path) -> None:
    name = st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=160
    )

    @settings(max_examples=50, deadline=None)
    @given(
        names=st.lists(name, min_size=1, max_size=6, unique=True),
        form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    )
    def check(names: list[str], form: int) -> None:
        path = write_tar(tmp_path / "a.tar", [(name, b"data") for name in names], form)
        with tarfile.open(path) as archive:
            expected = [(member.name, member.offset_data) for member in archive]
        assert [(member.name, member.offset) for member in read_members(OpenFile(path))] == expected

    check()


def test_sizes_beyond_eight_gigabytes_are_read(tmp_path: Path) -> None:
    size = 9 << 30
    path = tmp_path / "large.tar"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        header = tarfile.TarInfo("large.png")
        header.size = size
        head = header.tobuf(form)
        with open(path, "wb") as file:
            file.write(head)
            file.seek(len(head) + size)  # a hole: nine gigabytes that take no room
            file.write(bytes(1024))
        (member,) = read_members(OpenFile(path))
        assert (member.name, member.offset, member.size) == ("large.png", len(head), size)


def test_several_shards_are_one_list_with_unique_keys(tmp_path: Path) -> None:
    first = write_tar(tmp_path / "000.tar", pairs(["1", "2"]))
    second = write_tar(tmp_path / "001.tar", pairs(["1"]))
    both = source(first, second)
    assert [example.key for example in read_all(both)] == ["000/1", "000/2", "001/1"]
    assert both.parts == (2, 1)
    for position in (-1, 3):
        with pytest.raises(IndexError):
            both[position]


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"Z", "of the unknown type"),
    ],
)
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes, what: str) -> None:
    path = add(tmp_path / "a.tar", kind, linkname="/etc/passwd")
    with pytest.raises(DataError, match=rf"a\.tar at byte 0: '0001\.png' is {what}"):
        index_shard(path)


def test_a_sparse_file_in_a_pax_header_is_refused(tmp_path: Path) -> None:
    path = add(tmp_path / "a.tar", tarfile.REGTYPE, pax_headers={"GNU.sparse.major": "1"})
    with pytest.raises(DataError, match="sparse"):
        index_shard(path)


def test_a_file_twice_is_refused_with_its_place(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.png", png()), ("1.PNG", png())])
    with pytest.raises(
        DataError, match=r"a\.tar at byte 1,024: '1\.PNG': this file occurs twice in the archive"
    ):
        index_shard(path)


def test_files_of_a_key_that_are_apart_are_refused_with_their_place(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.png", png()), ("2.png", png()), ("1.txt", b"one")])
    with pytest.raises(DataError, match=r"at byte 2,048: '1\.txt': the key '1' occurred before"):
        index_shard(path)


def test_an_archive_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = write_tar(tmp_path / "whole.tar", pairs(["1", "2"])).read_bytes()
    end = len(data.rstrip(b"\0"))
    path = tmp_path / "cut.tar"
    for length in [1, 511, 512, 600, 1023, 1024, 1536, end - 1, end, end + 200]:
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"cut\.tar at byte [\d,]+: the archive is cut short"):
            index_shard(path)
    assert list(tmp_path.glob("*.index.json")) == []


def test_a_damaged_header_is_refused_with_its_place(tmp_path: Path) -> None:
    data = bytearray(write_tar(tmp_path / "a.tar", pairs(["1", "2"])).read_bytes())
    data[1024 + 3] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match="at byte 1,024: damaged: the checksum"):
        index_shard(tmp_path / "a.tar")


def test_joined_archives_are_refused_because_the_second_would_be_lost(tmp_path: Path) -> None:
    data = write_tar(tmp_path / "a.tar", pairs(["1"])).read_bytes()
    (tmp_path / "b.tar").write_bytes(data + data)
    with pytest.raises(DataError, match="more data follows the archive's end mark"):
        index_shard(tmp_path / "b.tar")


def test_an_extended_header_of_any_size_costs_no_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 33
    with open(tmp_path / "bomb.tar", "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(1 << 34)
    with pytest.raises(DataError, match="an extended header of 8,589,934,592 bytes"):
        index_shard(tmp_path / "bomb.tar")


def test_compressed_and_foreign_files_are_named_as_such(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x"), io.BytesIO())
    with pytest.raises(DataError, match="compressed with gzip"):
        index_shard(tmp_path / "a.tar")
    (tmp_path / "b.tar").write_bytes(b"not an archive " * 100)
    with pytest.raises(DataError, match="not a tar archive"):
        index_shard(tmp_path / "b.tar")
    with pytest.raises(DataError, match="no image in this archive"):
        index_shard(write_tar(tmp_path / "c.tar", [("1.txt", b"words")]))
    with pytest.raises(DataError, match="cannot be read"):
        index_shard(tmp_path / "missing.tar")


def test_damage_gives_an_error_of_ours_or_the_same_pairs(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", pairs(["1", "2"])).read_bytes()[:4096]
    path = tmp_path / "b.tar"

    @settings(max_examples=150, deadline=None)
    @given(place=st.integers(0, 4095), value=st.integers(0, 255), length=st.integers(0, 4096))
    def check(place: int, value: int, length: int) -> None:
        data = bytearray(whole)
        data[place] = value
        path.write_bytes(data[:length] + bytes(1024))
        try:
            names = [member.name for member in read_members(OpenFile(path))]
        except DataError:
            return
        assert names == ["1.png", "1.json", "2.png", "2.json"][: len(names)]

    check()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"[1]", "is a JSON list; expected one object"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b'{"captions": [1]}', r"'captions' is \[1\]; expected a string or a list of strings"),
        (b'{"label": 1.5}', "'label' is 1.5; expected a string or a whole number"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_bad_record_names_shard_and_key(tmp_path: Path, record: bytes, message: str) -> None:
    shard = source(write_tar(tmp_path / "a.tar", [("k.png", png()), ("k.json", record)]))
    with pytest.raises(DataError, match=rf"a\.tar: key 'k', \.json: {message}"):
        shard[0]


# --- the index --------------------------------------------------------------------------------------------


def test_the_index_is_kept_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tar", pairs(["1", "2"], code="X"))
    built = read_all(source(path))
    assert (tmp_path / "a.tar.index.json").exists()
    monkeypatch.setattr(shards, "read_members", None)  # whoever builds again fails
    assert read_all(source(path)) == built
    assert source(path).fingerprint == source(path).fingerprint


def test_an_index_of_an_older_shard_is_built_again(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pairs(["1", "2"]))
    before = source(path)
    assert len(before) == 2
    write_tar(path, pairs(["3", "4"]))
    os.utime(path, ns=(1, 1))
    after = source(path)
    assert [example.key for example in read_all(after)] == ["3", "4"]
    assert after.fingerprint != before.fingerprint
    with pytest.raises(DataError, match="changed while it was in use"):
        before[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: "",
        lambda kept: "[]",
        lambda kept: json.dumps(kept | {"keys": ["1"]}),
        lambda kept: json.dumps(kept | {"keys": ["1", "1"]}),
        lambda kept: json.dumps(kept | {"keys": [1, 2]}),
        lambda kept: json.dumps(kept | {"format_version": 0}),
        lambda kept: json.dumps(kept | {"places": {}}),
        lambda kept: json.dumps(kept | {"places": kept["places"] | {"json": [0, 10**9, 0, 1]}}),
        lambda kept: json.dumps(kept | {"places": kept["places"] | {"json": [0, 10**30, 0, 1]}}),
        lambda kept: json.dumps(kept | {"places": kept["places"] | {"image": [0, -1, 0, 1]}}),
        lambda kept: json.dumps(kept | {"places": kept["places"] | {"image": [-512, 4, 0, 1]}}),
    ],
)
def test_a_spoilt_index_is_built_again(tmp_path: Path, damage: Any) -> None:
    path = write_tar(tmp_path / "a.tar", pairs(["1", "2"]))
    expected = read_all(source(path))
    home = tmp_path / "a.tar.index.json"
    good = home.read_text()
    home.write_text(damage(json.loads(good)))
    assert read_all(source(path)) == expected
    assert home.read_text() == good


def test_a_folder_without_write_bits_stays_as_it_is(tmp_path: Path, user_cache: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    path = write_tar(folder / "a.tar", pairs(["1"]))
    folder.chmod(0o555)
    try:
        assert len(source(path)) == 1
        assert os.listdir(folder) == ["a.tar"]
        assert [entry.name.endswith("-a.tar.index.json") for entry in user_cache.rglob("*.json")] == [True]
    finally:
        folder.chmod(0o755)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "write_text", full)
    assert len(source(write_tar(tmp_path / "a.tar", pairs(["1"])))) == 1


# --- threads and processes --------------------------------------------------------------------------------


def _digest(shard: ShardSource, positions: list[int]) -> list[Example]:
    return [shard[position] for position in positions]


def test_threads_and_processes_read_the_same(tmp_path: Path) -> None:
    paths = [
        write_tar(tmp_path / f"{number}.tar", [(f"{key:04}.png", os.urandom(100 + key)) for key in range(50)])
        for number in range(3)
    ]
    shard = source(*paths)
    positions = random.Random(0).sample(range(150), 150)
    expected = _digest(shard, positions)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shard.__getitem__, positions)) == expected
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(1) as processes:
            assert processes.apply(_digest, (shard, positions)) == expected
    assert _digest(pickle.loads(pickle.dumps(shard)), positions) == expected


def test_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    paths = [write_tar(tmp_path / f"{number:03}.tar", pairs([str(number)])) for number in range(70)]
    shard = source(*paths)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert [example.captions for example in read_all(shard)] == [(f"a {number}",) for number in range(70)]
    assert len(os.listdir("/proc/self/fd")) <= before + 64
