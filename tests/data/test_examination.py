from pathlib import Path

import pytest

from diptych.data import Source, open_source
from diptych.data.examination import Failure, Finding, examine, verify_source
from diptych.data.images.decoding import read_header
from diptych.data.inspection import Range, inspect_source
from diptych.errors import ImageError
from tests.data.image_files import drawing, encoded
from tests.data.tar_files import write_tar

pytestmark = pytest.mark.usefixtures("user_cache")


FILES = [
    ("0.png", encoded(drawing(40, 30), "PNG")),
    ("0.txt", b"a red bicycle\nthe bicycle"),
    ("1.jpg", encoded(drawing(20, 10), "JPEG")),
    ("1.txt", b"A  red Bicycle"),
    ("2.png", encoded(drawing(40, 30), "PNG")),
    ("2.txt", b"one two three four five six"),
    ("3.png", encoded(drawing(8, 8), "PNG")),
    ("4.jpg", b"<html>"),
    ("4.txt", b"lost"),
]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return open_source(write_tar(tmp_path / "a.tar", FILES))


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_every_row_is_good_or_bad_in_order(source: Source, workers: int) -> None:
    found = list(examine(source, lambda example: read_header(example.image).width, workers=workers))
    assert [row.position for row in found] == list(range(5))
    assert [row.found for row in found if isinstance(row, Finding)] == [40, 20, 40]
    assert [(row.key, row.reason) for row in found if isinstance(row, Failure)] == [
        ("3", "no caption"),
        ("4", "not an image"),
    ]


def test_threads_stop_when_nobody_wants_more(source: Source) -> None:
    rows = examine(source, lambda example: example.key, workers=2)
    next(rows)
    rows.close()


def test_a_verdict_counts_every_row_once(source: Source) -> None:
    done: list[int] = []
    verdict = verify_source(source, progress=done.append)
    assert (verdict.total, verdict.read, len(verdict.bad), sum(done)) == (5, 3, 2, 5)
    assert verdict.reasons == {"no caption": 1, "not an image": 1}
    assert verify_source(source, need_caption=False).reasons == {"not an image": 1}


def test_damage_behind_the_header_is_seen_by_verifying_and_not_by_inspecting(tmp_path: Path) -> None:
    cut = encoded(drawing(), "PNG")[:400]
    source = open_source(write_tar(tmp_path / "a.tar", [("1.png", cut), ("1.txt", b"a")]))
    assert inspect_source(source, len).bad == {}
    assert verify_source(source).reasons == {"truncated image": 1}


def test_an_inspection_counts_by_hand(source: Source) -> None:
    found = inspect_source(source, lambda caption: len(caption.split()) + 2, context_length=5)
    assert (found.count, found.looked_at, found.bad) == (5, 5, {"not an image": 1})
    assert found.formats == {"PNG": 3, "JPEG": 1}
    assert found.width == Range(8, 30.0, 27.0, 40)
    # Tokens of the captions: 5, 4, 5 and 8.
    assert found.tokens == Range(4, 5.0, 5.5, 8)
    assert (found.captions, found.too_long, found.without_caption) == (4, 1, 1)
    assert (found.same_images, found.same_captions) == (1, 1)
    assert [row["row"] for row in found.rows] == [0, 1, 2]
    assert found.rows[0]["captions"] == ["a red bicycle", "the bicycle"]


def test_an_inspection_of_some_rows_spreads_them_evenly(source: Source) -> None:
    found = inspect_source(source, len, most=2, shown=9)
    assert (found.count, found.looked_at) == (5, 2)
    assert [row["row"] for row in found.rows] == [0, 2]


def test_an_inspection_of_nothing_readable_has_no_ranges(tmp_path: Path) -> None:
    source = open_source(write_tar(tmp_path / "a.tar", [("1.jpg", b"no")]))
    found = inspect_source(source, len)
    assert (found.width, found.tokens, found.rows) == (None, None, [])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_header_tells_what_was_written(kind: str) -> None:
    data = encoded(drawing(31, 17), kind)
    header = read_header(data)
    assert (header.format.upper(), header.width, header.height, header.file_bytes) == (
        kind,
        31,
        17,
        len(data),
    )
    with pytest.raises(ImageError, match="not an image"):
        read_header(b"words")


def test_an_inspection_counts_images_with_different_labels(tmp_path: Path) -> None:
    labels = [("a", "cat"), ("a", "cat"), ("b", "dog"), ("b", "fox"), ("a", ""), ("c", "cat")]
    for name, width in (("a", 10), ("b", 20), ("c", 30)):
        (tmp_path / f"{name}.png").write_bytes(encoded(drawing(width, 10), "PNG"))
    lines = [f"{name}.png,{label}" for name, label in labels]
    (tmp_path / "t.csv").write_text("image,label\n" + "\n".join(lines) + "\n")
    found = inspect_source(open_source(tmp_path / "t.csv"), len)
    assert (found.same_images, found.differing_labels) == (3, 1)
    assert found.first_differing == {"key": "b.png", "labels": ["dog", "fox"]}


def test_neighbouring_rows_of_one_image_are_seen_in_a_large_table(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / f"{number}.png").write_bytes(encoded(drawing(number % 40 + 8, number // 40 + 8), "PNG"))
    lines = [f"{number // 5}.png,{number}" for number in range(2_000)]
    (tmp_path / "t.csv").write_text("image,caption\n" + "\n".join(lines) + "\n")
    found = inspect_source(open_source(tmp_path / "t.csv"), len, most=400)
    assert found.looked_at == 400
    assert found.same_images > 280


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("gone.jpg")
    (tmp_path / "b.png").write_bytes(encoded(drawing(), "PNG"))
    found = verify_source(open_source(tmp_path), need_caption=False)
    assert found.left_out.to_json() == {"missing image": {"count": 1, "first": [str(tmp_path / "a.jpg")]}}
    assert "it is a link to gone.jpg, which does not exist" in found.bad[0].message
