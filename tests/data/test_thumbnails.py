"""Previews: what they show, and that they are nothing but pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from diptych.data.images import thumbnails
from diptych.data.images.thumbnails import SIDE, preview


@pytest.fixture(autouse=True, params=["simplejpeg", "Pillow"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to a JPEG keep the same promises."""
    assert vars(thumbnails)["simplejpeg"] is not None
    if request.param == "Pillow":
        monkeypatch.setattr(thumbnails, "simplejpeg", None)


def waves(width: int, height: int) -> np.ndarray:
    """Smooth in both directions, with some detail, as photographs are."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    channels = [
        np.sin(9 * x + phase) * np.cos(7 * y - phase) + 0.2 * np.sin(90 * x * y) for phase in (0, 1, 2)
    ]
    return ((np.stack(channels, axis=2) + 1.2) * 106).clip(0, 255).astype(np.uint8)


def opened(pixels: np.ndarray) -> Image.Image:
    return Image.open(io.BytesIO(preview(pixels).thumbnail))


@pytest.mark.parametrize(("width", "height"), [(640, 427), (427, 640), (700, 3000)])
def test_a_copy_is_the_picture_made_smaller(width: int, height: int) -> None:
    pixels = waves(width, height)
    found = preview(pixels)
    assert (found.width, found.height) == (width, height)
    small = opened(pixels)
    assert max(small.size) == SIDE
    expected = Image.fromarray(pixels).resize(small.size, Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(small, float) - np.asarray(expected, float)).mean() < 3
    assert len(found.thumbnail) < 40_000


def test_a_small_picture_keeps_its_size_and_the_edges_of_its_colours() -> None:
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:, :31], pixels[:, 31:] = (255, 0, 0), (0, 0, 255)
    small = opened(pixels)
    assert small.size == (64, 40)
    assert np.abs(np.asarray(small, float) - pixels).max() < 60  # with halved colours: 150


@pytest.mark.parametrize(("width", "height"), [(1, 5000), (5000, 1), (1, 1), (321, 320)])
def test_every_shape_has_a_copy(width: int, height: int) -> None:
    assert max(opened(waves(width, height)).size) == min(SIDE, max(width, height))


def test_a_copy_has_nothing_but_pixels() -> None:
    assert opened(waves(600, 400)).info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
