"""One bad example for each reason, made as it comes up, and what a loader makes of a shard full of them."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.data import Example, open_source
from diptych.data.examination import verify_source
from diptych.data.images import decoding
from diptych.data.images.augmentations import CentreCrop
from diptych.data.images.canvas import canvas_for
from diptych.data.images.decoding import HEIC_NEEDS, Limits, read_rgb
from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Loader
from diptych.data.reasons import _REASONS, NO_CAPTION, reason_of
from diptych.errors import DataError, ImageError
from tests.data.image_files import drawing, encoded, heic, png, tiff
from tests.data.tar_files import write_tar

GOOD = encoded(drawing(), "PNG")


pytestmark = pytest.mark.usefixtures("user_cache")


def from_table(folder: Path, name: str, row: str) -> Example:
    (folder / name).write_text(row)
    return open_source(folder / name)[0]


def vanished(folder: Path) -> Example:
    (folder / "a.png").write_bytes(GOOD)
    source = open_source(folder)
    (folder / "a.png").unlink()
    return source[0]


def replaced(folder: Path) -> Example:
    source = open_source(write_tar(folder / "a.tar", [("1.png", GOOD)]))
    write_tar(folder / "a.tar", [("1.png", GOOD), ("2.png", GOOD)])
    return source[0]


def tokens(folder: Path) -> list[Example]:
    """One broken row and one good one in the form of Flickr8k."""
    (folder / "a.png").write_bytes(GOOD)
    (folder / "t.token").write_text("a.png#0\tone\na.png#1 two\n")
    return [open_source(folder / "t.token")[1]]


def beside(folder: Path, name: str, data: bytes) -> Example:
    (folder / "a.png").write_bytes(GOOD)
    (folder / name).write_bytes(data)
    return open_source(folder)[0]


def endless_caption(folder: Path) -> Example:
    (folder / "a.txt").symlink_to("/dev/zero")
    (folder / "a.png").write_bytes(GOOD)
    return open_source(folder)[0]


def without_heic(_: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "READS_HEIC", False)
        return read_rgb(heic(drawing()))


BAD: dict[str, Callable[[Path], object]] = {
    "truncated image": lambda _: read_rgb(GOOD[: len(GOOD) // 2]),
    "damaged image": lambda _: read_rgb(GOOD[:60] + bytes(60) + GOOD[120:]),
    "not an image": lambda _: read_rgb(b"<html>404</html>"),
    "empty image": lambda _: read_rgb(b""),
    "image too large": lambda _: read_rgb(GOOD, limits=Limits(pixels=10)),
    "pixels of unknown range": lambda _: read_rgb(tiff(1, 1, 32, bytes(4), 3)),
    "format not read": lambda _: read_rgb(GOOD, limits=Limits(formats=("JPEG",))),
    "missing image": lambda folder: from_table(folder, "t.csv", "image,caption\nno.png,a\n"),
    "image is an address": lambda folder: from_table(folder, "t.jsonl", '{"image": "https://a/b.png"}\n'),
    "no image named": lambda folder: from_table(folder, "t.jsonl", '{"image": ""}\n'),
    "invalid JSON": lambda folder: beside(folder, "a.json", b"{"),
    "unreadable caption file": endless_caption,
    "text is not UTF-8": lambda folder: beside(folder, "a.txt", b"caf\xe9"),
    "field of the wrong type": lambda folder: beside(folder, "a.json", b'{"caption": 1.5}'),
    "broken row": lambda folder: tokens(folder)[0],
    "file changed": replaced,
    HEIC_NEEDS: without_heic,
}


@pytest.mark.parametrize("reason", BAD)
def test_every_kind_of_bad_example_has_its_reason(reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        BAD[reason](tmp_path)
    assert reason_of(caught.value) == reason


def test_further_forms_of_a_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        vanished(tmp_path)
    assert reason_of(caught.value) == "missing image"
    for kind in ("JPEG", "GIF", "BMP", "AVIF"):
        whole = encoded(drawing(), kind)
        with pytest.raises(ImageError) as cut:
            read_rgb(whole[: 2 * len(whole) // 3])
        assert reason_of(cut.value) == "truncated image", kind
    assert reason_of(DataError("a: cannot be read (Input/output error)")) == "unreadable file"
    with pytest.raises(ImageError) as folder:
        read_rgb(tmp_path)
    assert reason_of(folder.value) == "unreadable file"
    assert reason_of(DataError("something new")) == "unreadable"


def test_a_name_that_reads_like_a_reason_is_none() -> None:
    error = ImageError("/data/truncated.png: not an image: begins with b'<html'; expected one of JPEG")
    assert reason_of(error) == "not an image"


def test_no_reason_is_untested() -> None:
    assert {reason for _, reason in _REASONS} == {*BAD, "unreadable file", NO_CAPTION}


def ids(texts: Sequence[str]) -> torch.Tensor:
    return torch.zeros(len(texts), 1)


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[Path, Counter[str]]:
    """A shard of 30 examples of which 18 are bad, for six reasons."""
    words = json.dumps({"caption": "a drawing"}).encode()
    huge = png(60_000, 60_000, 1, 0, None)
    kinds = [
        ("truncated image", GOOD[:300], words),
        ("not an image", b"<svg/>", words),
        ("image too large", huge, words),
        ("invalid JSON", GOOD, b"[1"),
        (NO_CAPTION, GOOD, b'{"caption": "  "}'),
        ("field of the wrong type", GOOD, b'{"captions": 7}'),
    ]
    members, counts = [], Counter[str]()
    for row in range(30):
        reason, image, record = kinds[row % 6] if row % 5 < 3 else ("", GOOD, words)
        members += [(f"{row:03}.png", image), (f"{row:03}.json", record)]
        counts[reason] += 1
    del counts[""]
    return write_tar(tmp_path / "a.tar", members), counts


@pytest.mark.parametrize("workers", [0, 3])
def test_of_a_hostile_shard_read_and_skipped_are_all(
    hostile: tuple[Path, Counter[str]], workers: int
) -> None:
    path, counts = hostile
    source = open_source(path)
    assert len(counts) == 6
    loader = Loader(
        *(source, canvas_for(CentreCrop(), Preprocess(8)), ids, 10, 0, np.ones(30)),
        workers=workers,
        most_bad=1.0,
    )
    rows = torch.cat([batch.rows for batch in islice(loader.batches(0), 3)])
    good = [row for row in range(30) if row % 5 >= 3]
    assert loader.asked == 30
    assert loader.skipped == counts
    assert loader.asked - loader.skipped.total() == len(good)
    assert set(rows.tolist()) == set(good)
    verdict = verify_source(source, workers=workers)
    assert verdict.reasons == counts
    assert verdict.read + len(verdict.bad) == verdict.total == 30
    assert sorted(set(range(30)) - {row.position for row in verdict.bad}) == good
