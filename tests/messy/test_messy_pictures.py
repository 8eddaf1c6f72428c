"""The files of the messy folder are what they say, and what is read of them is the whole picture."""

import hashlib

import numpy as np
import pytest

from diptych.data.images.decoding import read_rgb
from diptych.data.reasons import reason_of
from diptych.errors import DataError
from tests.messy.messy_damage import cut_files, large_pictures
from tests.messy.messy_folder import pictures
from tests.messy.messy_pictures import (
    READ,
    Picture,
    drawing,
    heic_pictures,
    seeds,
    uniform_jpeg,
    whole_pictures,
)


def fate(picture: Picture) -> str:
    try:
        read_rgb(picture.data)
    except DataError as error:
        return reason_of(error)
    return READ


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on metadata that are cut
def test_every_variant_of_every_format_looks_like_what_was_drawn() -> None:
    for picture in (*whole_pictures(), *heic_pictures((READ,))):
        assert fate(picture) in picture.fate, picture.name
        if picture.looks:
            pixels, expected = (
                read_rgb(picture.data).astype(int),
                np.asarray(drawing(picture.number)).astype(int),
            )
            assert pixels.shape == expected.shape, picture.name
            assert np.abs(pixels - expected).mean() < 8, picture.name  # levels; 16 colours are coarse


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_that_was_cut_is_read_only_where_all_its_pixels_are_there() -> None:
    whole = {form: read_rgb(data) for form, data in seeds().items()}
    for picture in cut_files(40):
        found = fate(picture)
        assert found in picture.fate, picture.name
        if found == READ:
            assert np.array_equal(read_rgb(picture.data), whole[picture.name.partition(" at ")[0]]), (
                picture.name
            )


@pytest.mark.parametrize("colour", [False, True])
def test_a_jpeg_that_was_written_without_pixels_is_middle_grey(colour: bool) -> None:
    pixels = read_rgb(uniform_jpeg(333, 222, colour=colour))
    assert pixels.shape == (222, 333, 3)
    assert pixels.min() == pixels.max() == 128


def test_large_images_take_little_space_on_a_disk() -> None:
    assert sum(len(picture.data) for picture in large_pictures(most=True)) < 30_000_000


def test_the_files_are_the_same_each_time() -> None:
    first, second = (
        [
            (one.name, one.suffix, hashlib.sha256(one.data).digest())
            for one in pictures(300)
            if (one.kind, one.name) != ("AVIF", "animated")  # libavif writes the time into a sequence
        ]
        for _ in range(2)
    )
    assert first == second
