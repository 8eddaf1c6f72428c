import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image

from diptych.atomic import atomic_write, sha256_of, write_text
from diptych.data import Source, open_source, packing
from diptych.data.images.decoding import read_header
from diptych.data.packing import Pack, pack_source, read_pack
from diptych.errors import DataError, SettingsError
from tests.data.image_files import drawing, encoded
from tests.data.tar_files import pairs, write_tar

WORDS = {
    "captions": ["one", "zwei \N{CAT}"],
    "tags": ["a", "b"],
    "label": "cat",
    "code": "1F431",
    "vendor": "noto",
}


pytestmark = pytest.mark.usefixtures("user_cache")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Twenty examples, of which rows 3, 4 and 19 are bad."""
    members = []
    for row in range(20):
        image = encoded(drawing(30 + row), "PNG") if row not in (3, 19) else b"<html>"
        record = WORDS | {"captions": [f"caption {row}"]} if row != 4 else {}
        members += [(f"k{row:02}.png", image), (f"k{row:02}.json", json.dumps(record).encode())]
    return open_source(write_tar(tmp_path / "source.tar", members))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix == ".tar"}


def pack(source: Source, out: Path, **more: Any) -> Pack:
    return pack_source(source, out, shard_bytes=10_000, workers=0, **more)


def test_a_pack_has_the_words_and_the_files_of_its_source(source: Source, tmp_path: Path) -> None:
    pack(source, tmp_path / "out")
    packed = open_source(tmp_path / "out")
    good = [row for row in range(20) if row not in (3, 4, 19)]
    assert len(packed) == len(good)
    for position, row in enumerate(good):
        expected, found = source[row], packed[position]
        for name in ("image", "captions", "tags", "label", "group"):
            assert getattr(found, name) == getattr(expected, name)
        assert found.metadata == {"vendor": "noto", "source_key": expected.key}
        assert found.key == expected.key


def test_what_was_dropped_is_listed_by_reason(source: Source, tmp_path: Path) -> None:
    made = pack(source, tmp_path / "out")
    assert (made.total, made.examples, made.done) == (20, 17, 20)
    assert made.reasons == {"not an image": 2, "no caption": 1}
    assert read_pack(tmp_path / "out") == made
    dropped = [row for shard in made.shards for row in shard.dropped]
    assert [(row["position"], row["key"]) for row in dropped] == [(3, "k03"), (4, "k04"), (19, "k19")]
    with_all = pack(source, tmp_path / "all", need_caption=False)
    assert with_all.reasons == {"not an image": 2}


def test_shards_cover_the_source_and_have_indexes_and_hashes(source: Source, tmp_path: Path) -> None:
    made = pack(source, tmp_path / "out")
    assert len(made.shards) > 2
    assert made.shards[0].start == 0
    assert all(left.stop == right.start for left, right in pairwise(made.shards))
    for shard in made.shards:
        path = tmp_path / "out" / shard.name
        assert (path.stat().st_size, sha256_of(path)) == (shard.size, shard.sha256)
        assert path.with_name(f"{shard.name}.index.json").exists()


def test_threads_change_no_byte(source: Source, tmp_path: Path) -> None:
    pack(source, tmp_path / "a")
    pack_source(source, tmp_path / "b", shard_bytes=10_000, workers=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_failure_at_any_write_is_made_good_by_the_next_attempt(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(source, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    write, out = write_text, tmp_path / "out"
    for stop in range(5):
        # Between a shard and the manifest that names it: the worst moment.
        calls = iter(range(100))

        def full(path: Path, text: str, calls: Any = calls, stop: int = stop) -> None:
            if next(calls) == stop:
                raise OSError(28, "No space left on device")
            write(path, text)

        monkeypatch.setattr(packing, "write_text", full)
        try:
            pack(source, out)
        except OSError:
            continue
    monkeypatch.setattr(packing, "write_text", write)
    made = pack(source, out)
    assert contents(out) == expected
    assert made.examples == 17
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_a_shard_that_is_gone_or_cut_is_packed_again(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(source, out)
    expected = contents(out)
    (out / "00001.tar").write_bytes(expected["00001.tar"][:1000])
    progress: list[int] = []
    pack(source, out, progress=progress.append)
    assert contents(out) == expected
    assert sum(progress) == 20


@contextlib.contextmanager
def plainly(path: Path) -> Iterator[BinaryIO]:
    """The broken twin of `atomic_write`."""
    with open(path, "wb") as file:
        yield file


@pytest.mark.parametrize(("writer", "torn"), [(atomic_write, False), (plainly, True)])
def test_a_shard_appears_whole_or_not_at_all(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Any, torn: bool
) -> None:
    add, left = packing._add, iter(range(7))

    def full(*arguments: Any) -> None:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        add(*arguments)

    monkeypatch.setattr(packing, "_add", full)
    monkeypatch.setattr(packing, "atomic_write", writer)
    with pytest.raises(OSError, match="No space left"):
        pack(source, tmp_path / "out")
    assert (tmp_path / "out" / "00000.tar").exists() == torn


CHILD = """
import sys, time
from pathlib import Path
from diptych.data import open_source
from diptych.data import packing
add = packing._add
def slowly(*arguments):
    time.sleep(0.01)
    add(*arguments)
packing._add = slowly
packing.pack_source(open_source(sys.argv[1]), Path(sys.argv[2]), shard_bytes=10_000, workers=0)
"""


def test_a_packing_that_is_killed_goes_on_to_the_same_bytes(source: Source, tmp_path: Path) -> None:
    pack(source, tmp_path / "whole")
    out = tmp_path / "out"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "source.tar"), str(out)])
    while child.poll() is None and not (out / "00000.tar").exists():
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    pack(source, out)
    assert contents(out) == contents(tmp_path / "whole")
    assert [path.name for path in out.iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.parametrize("begun", [False, True])
def test_what_a_killed_packing_left_half_written_is_removed(
    source: Source, tmp_path: Path, begun: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if begun:
        pack(source, out)
    for name in (".pack.json.henqyfkq.tmp", ".00001.tar.abcdefgh.tmp"):
        (out / name).write_bytes(b"half of")
    pack(source, out)
    pack(source, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")
    assert not list(out.glob("*.tmp"))


def test_a_folder_with_something_else_is_refused(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "00000.tar").write_text("mine")
    with pytest.raises(SettingsError, match=r"holds other files, such as 00000\.tar"):
        pack(source, out)
    assert (out / "00000.tar").read_text() == "mine"


def test_a_pack_of_something_else_is_refused(source: Source, tmp_path: Path) -> None:
    pack(source, tmp_path / "out")
    with pytest.raises(SettingsError, match="differs in settings"):
        pack(source, tmp_path / "out", resize=8)
    other = open_source(write_tar(tmp_path / "other.tar", pairs(["1"])))
    with pytest.raises(SettingsError, match="differs in fingerprint"):
        pack(other, tmp_path / "out")


def test_a_source_without_anything_good_is_an_error(tmp_path: Path) -> None:
    bad = open_source(write_tar(tmp_path / "bad.tar", [("1.jpg", b"no"), ("1.txt", b"words")]))
    with pytest.raises(DataError, match=r"none of its 1 rows can be used \(1 not an image\)$"):
        pack(bad, tmp_path / "out")


def test_a_pack_of_a_pack_keeps_the_first_keys(source: Source, tmp_path: Path) -> None:
    pack(source, tmp_path / "a")
    pack(open_source(tmp_path / "a"), tmp_path / "b")
    assert open_source(tmp_path / "b")[0].metadata["source_key"] == "k00"


# --- smaller images ---------------------------------------------------------------------------------------


def resized(tmp_path: Path, data: bytes, suffix: str) -> bytes:
    """The only image of a pack at 16 pixels."""
    source = open_source(write_tar(tmp_path / "a.tar", [(f"1.{suffix}", data), ("1.txt", b"words")]))
    pack(source, tmp_path / "out", resize=16)
    image = open_source(tmp_path / "out")[0].image
    assert isinstance(image, bytes)
    return image


def test_a_photograph_is_reduced_to_its_shorter_side(tmp_path: Path) -> None:
    image = resized(tmp_path, encoded(drawing(96, 64), "JPEG", quality=95), "jpg")
    header = read_header(image)
    assert (header.format, header.width, header.height) == ("JPEG", 24, 16)
    expected = np.asarray(drawing(96, 64).resize((24, 16), Image.Resampling.BICUBIC), float)
    found = np.asarray(Image.open(io.BytesIO(image)), float)
    # Two rounds of JPEG at quality 90 and up, on smooth and on noisy parts.
    assert np.abs(found - expected).mean() < 8


def test_a_drawing_with_transparency_keeps_it(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, 32:] = (200, 10, 10, 255)
    image = Image.open(
        io.BytesIO(resized(tmp_path, encoded(Image.fromarray(pixels), "WEBP", lossless=True), "webp"))
    )
    assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (16, 16))
    found = np.asarray(image)
    assert found[8, 1].tolist()[3] == 0
    assert found[8, 14].tolist() == [200, 10, 10, 255]


def test_a_smaller_image_stays_as_it_is(tmp_path: Path) -> None:
    data = encoded(drawing(16, 12), "PNG")
    assert resized(tmp_path, data, "png") == data


def test_a_lying_photograph_is_turned_upright_when_it_is_reduced(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = resized(tmp_path, encoded(drawing(96, 64), "JPEG", exif=exif), "jpg")
    assert read_header(image).width == 16
    assert read_header(image).height == 24
