"""Preprocessing against the original pipeline: Pillow's resize, torchvision's rounding, slow arithmetic."""

import io
import json
import pickle
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diptych import config
from diptych.data.images import decoding, transforms
from diptych.data.images.decoding import Pixels
from diptych.data.images.transforms import CLIP_MEAN, CLIP_STD, Preprocess
from diptych.errors import ImageError, SettingsError
from tests.data.image_files import drawing, encoded


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth shades, some texture and some hard edges."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    levels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    levels += draw.normal(0, 8, levels.shape)
    levels[height // 3 : height // 2, width // 4 : width // 2] = draw.integers(0, 256, 3)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def resized(
    image: Image.Image, size: tuple[int, int], filter_: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    return image.resize((size[0], image.height), filter_).resize(size, filter_)


def original(image: Image.Image, n: int, filter_: Image.Resampling = Image.Resampling.BICUBIC) -> Pixels:
    """Resize(n), CenterCrop(n) of torchvision on a Pillow image, whole image resized.

    One axis at a time, because the order of the two shows, and Pillow 13 reverses it for tall images.
    """
    width, height = image.size
    size = (n, int(n * height / width)) if width <= height else (int(n * width / height), n)
    scaled = resized(image, size, filter_)
    left = round((scaled.width - n) / 2)
    top = round((scaled.height - n) / 2)
    return np.array(scaled.crop((left, top, left + n, top + n)))


def difference(one: Pixels, other: Pixels) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize(
    "size", [(640, 480), (333, 500), (256, 256), (224, 224), (225, 224), (100, 75), (30, 3)]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pixels_equal_the_original_pipeline_within_one_level(kind: str, size: tuple[int, int]) -> None:
    data = encoded(photograph(*size), kind)

    assert difference(Preprocess(224).pixels(data), original(Image.open(io.BytesIO(data)), 224)) <= 1


@pytest.mark.parametrize(
    ("resize", "size"),
    [("shortest", (300, 200)), ("squash", (300, 200)), ("longest", (300, 200)), ("longest", (101, 333))],
)
def test_the_tensor_equals_open_clips_within_one_level(
    open_clip: Any, resize: Any, size: tuple[int, int]
) -> None:
    image = photograph(*size)
    expected = open_clip.image_transform(64, is_train=False, resize_mode=resize)(image)
    levels = 255 * torch.tensor(CLIP_STD).view(3, 1, 1)

    found = Preprocess(64, resize=resize, background=(0, 0, 0))(image)
    assert ((found - expected) * levels).abs().max() <= 1.001


def test_machines_where_torch_is_slow_get_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "_TORCH_IS_FAST", False)
    for size in ((320, 240), (200, 300), (64, 64)):
        image = photograph(*size)
        assert difference(Preprocess(64).pixels(image), original(image, 64)) <= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([1, 7, 16, 33]), st.integers(0, 99))
def test_any_size_equals_the_original_pipeline(width: int, height: int, n: int, seed: int) -> None:
    image = photograph(width, height, seed)
    found, expected = Preprocess(n).pixels(image), original(image, n)

    # A reduction by torch may differ by two at a hard edge, about once in five million values.
    assert difference(found, expected) <= (2 if min(width, height) > n else 1)
    assert (np.abs(found.astype(int) - expected) == 2).sum() <= 1


def test_noise_equals_the_original_pipeline_within_one_level() -> None:
    draw = np.random.default_rng(0)
    for size in ((32, 64), (64, 32), (100, 500), (300, 260)):
        image = Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8))
        assert difference(Preprocess(224).pixels(image), original(image, 224)) <= 1


def test_the_call_normalises_the_pixels_exactly() -> None:
    preprocess = Preprocess(32)
    pixels, found = preprocess.pixels(drawing()), preprocess(drawing())

    assert found.shape == (3, 32, 32)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    for channel in range(3):  # ToTensor and Normalize of torchvision, each in single precision
        for y, x in ((0, 0), (31, 31), (5, 20)):
            value = np.float32(pixels[y, x, channel]) / np.float32(255)
            value = (value - np.float32(CLIP_MEAN[channel])) / np.float32(CLIP_STD[channel])
            assert found[channel, y, x].item() == value


def test_mean_and_standard_deviation_can_be_set() -> None:
    found = Preprocess(8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))(Image.new("RGB", (8, 8), (0, 51, 255)))

    assert torch.allclose(found[:, 4, 4], torch.tensor([-1.0, -0.6, 1.0]))


def test_bilinear_equals_pillow_within_one_level() -> None:
    for size in ((300, 200), (20, 50), (20, 400), (900, 70)):
        image = photograph(*size)
        found = Preprocess(64, interpolation="bilinear").pixels(image)
        assert difference(found, original(image, 64, Image.Resampling.BILINEAR)) <= 1


def test_squash_shows_the_whole_image_distorted() -> None:
    for size in ((300, 200), (20, 50), (1, 999)):
        image = photograph(*size)
        expected = np.array(resized(image, (64, 64)))
        assert difference(Preprocess(64, resize="squash").pixels(image), expected) <= 1


@pytest.mark.parametrize(("size", "box"), [((200, 100), (0, 16, 64, 48)), ((99, 300), (21, 0, 42, 64))])
def test_longest_shows_the_whole_image_on_the_background(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = box
    image = photograph(*size)
    found = Preprocess(64, resize="longest", background=(1, 2, 3)).pixels(image)

    inside = np.array(resized(image, (right - left, bottom - top)))
    assert difference(found[top:bottom, left:right], inside) <= 1
    found[top:bottom, left:right] = (1, 2, 3)
    assert (found == (1, 2, 3)).all()


@pytest.mark.parametrize("resize", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 10_000), (10_000, 1), (3, 5_000)])
def test_extreme_shapes_give_a_full_square(size: tuple[int, int], resize: str) -> None:
    found = Preprocess(48, resize=resize)(photograph(*size))  # type: ignore[arg-type]

    assert found.shape == (3, 48, 48)
    assert found.isfinite().all()


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (3, 5_000), (5_000, 3), (40, 900)])
def test_extreme_shapes_equal_the_original_pipeline_within_one_level(size: tuple[int, int]) -> None:
    image = photograph(*size)

    assert difference(Preprocess(8).pixels(image), original(image, 8)) <= 1


def test_an_extreme_shape_takes_little_memory() -> None:
    preprocess = Preprocess(224)
    preprocess(photograph(10, 10))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    preprocess(photograph(1, 100_000))  # whole, it would be resized to 224 x 22,400,000 pixels: 15 GB

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64_000  # KB


def test_path_bytes_stream_and_pillow_image_give_the_same_tensor(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    photograph(320, 240).save(path, quality=90)
    preprocess = Preprocess(64)
    expected = preprocess(path)

    with path.open("rb") as stream, Image.open(path) as opened:
        for source in (str(path), path.read_bytes(), stream, opened):
            assert torch.equal(preprocess(source), expected)


def test_without_simplejpeg_the_tensor_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photograph(320, 240), "JPEG", quality=90)
    assert vars(decoding)["simplejpeg"] is not None
    fast = Preprocess(64)(data)
    monkeypatch.setattr(decoding, "simplejpeg", None)

    assert torch.equal(Preprocess(64)(data), fast)


def test_rotation_comes_before_the_resize() -> None:
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    image = photograph(90, 60)
    data = encoded(image, "PNG", exif=exif.tobytes())

    upright = image.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(Preprocess(32).pixels(data), Preprocess(32).pixels(upright))


def test_colours_come_before_the_resize() -> None:
    """The original resizes palette images by their nearest pixel, and drops alpha: differences on purpose."""
    palette = photograph(90, 60).quantize(32)
    assert np.array_equal(Preprocess(32).pixels(palette), Preprocess(32).pixels(palette.convert("RGB")))

    layer = photograph(90, 60)
    layer.putalpha(Image.linear_gradient("L").resize((90, 60)))
    flat = Image.new("RGB", layer.size, (9, 99, 199))
    flat.paste(layer, mask=layer)
    preprocess = Preprocess(32, background=(9, 99, 199))
    assert np.array_equal(preprocess.pixels(layer), preprocess.pixels(flat))


def test_threads_do_not_disturb_each_other() -> None:
    files = [encoded(photograph(100 + i, 90, seed=i), "JPEG") for i in range(16)]
    preprocess = Preprocess(32)
    expected = [preprocess(data) for data in files]

    with ThreadPoolExecutor(4) as pool:
        assert all(map(torch.equal, pool.map(preprocess, files), expected))


def test_settings_survive_json_and_pickle() -> None:
    preprocess = Preprocess(
        384, mean=(0.5, 0.5, 0.5), interpolation="bilinear", resize="squash", background=(0, 0, 0)
    )

    assert config.build(Preprocess, json.loads(json.dumps(config.plain(preprocess))), "here") == preprocess
    assert pickle.loads(pickle.dumps(preprocess)) == preprocess
    assert config.build(Preprocess, {"resolution": 224}, "here") == Preprocess(224)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Preprocess(0), "resolution: expected at least 1 pixel, found 0"),
        (lambda: Preprocess(8, std=(1.0, 0.0, 1.0)), "std: expected three numbers above 0"),
        (lambda: Preprocess(8, background=(0, 0, 256)), "background: expected three levels in 0..255"),
        (
            lambda: Preprocess(8, resize="short"),  # type: ignore[arg-type]
            "resize: 'short' is not one of 'shortest', 'squash', 'longest'",
        ),
        (
            lambda: Preprocess(8, interpolation="cubic"),  # type: ignore[arg-type]
            "'cubic' is not one of 'bicubic', 'bilinear'",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_refused(make: Callable[[], Preprocess], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make()


def test_a_damaged_image_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(photograph(99, 99), "JPEG")[:900])

    with pytest.raises(ImageError, match=r"cut\.jpg"):
        Preprocess(32)(path)


@pytest.mark.parametrize(
    "array", [np.zeros((40, 3), np.uint8), np.zeros((3, 40, 40), np.uint8), np.zeros((40, 40, 3), np.float32)]
)
def test_an_array_that_is_not_8_bit_rgb_is_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ImageError, match=r"expected 8-bit RGB \(height, width, 3\)"):
        Preprocess(16)(array)
