"""Distinguish files that end too early from damaged ones, in every format."""

import pytest

from diptych.data.images.decoding import read_rgb
from diptych.data.images.truncation import is_cut
from diptych.data.reasons import reason_of
from diptych.errors import ImageError
from tests.data.image_files import drawing, encoded, patched, tiff

WHOLE = {
    "JPEG": encoded(drawing(), "JPEG"),
    "PNG": encoded(drawing(), "PNG"),
    "GIF": encoded(drawing(), "GIF"),
    "WebP": encoded(drawing(), "WEBP"),
    "BMP": encoded(drawing(), "BMP"),
    "TIFF": encoded(drawing(), "TIFF", compression="tiff_lzw"),
    "AVIF": encoded(drawing(), "AVIF", max_threads=1),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_file_is_not_cut_and_a_part_of_it_is(kind: str) -> None:
    whole = WHOLE[kind]
    assert not is_cut(whole, kind)
    for part in range(20, len(whole) - 30, 7):
        assert is_cut(whole[:part], kind), part
        with pytest.raises(ImageError) as caught:
            read_rgb(whole[:part])
        assert reason_of(caught.value) == "truncated image", part


def test_boxes_that_are_whole_without_the_last_are_cut() -> None:
    whole = WHOLE["AVIF"]
    assert is_cut(whole[: whole.index(b"mdat") - 4], "AVIF")


def test_damage_inside_a_whole_file_is_damage() -> None:
    webp = WHOLE["WebP"]
    with pytest.raises(ImageError) as caught:
        read_rgb(patched(webp, 23, bytes(3)))
    assert reason_of(caught.value) == "damaged image"


def test_a_format_that_does_not_tell_is_not_said_to_be_cut() -> None:
    assert not is_cut(b"", "None")
    assert not is_cut(tiff(1, 1, 8, b"\0"), "TIFF")
    assert not is_cut(encoded(drawing(), "TIFF", big_tiff=True), "TIFF")
