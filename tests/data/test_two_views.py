"""SimCLR's views: each change against torchvision or Pillow, the randomness against its distribution."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare, kstest
from torch import Tensor

from diptych.data.images.two_views import (
    TwoViews,
    blend,
    crop_boxes,
    gaussian_blur,
    jitter,
    luma,
    random_view,
    resize_weights,
    turn_hue,
    view_chances,
)
from diptych.errors import SettingsError

STILL = TwoViews(area=(1.0, 1.0), aspect=(1.0, 1.0), mirror=0, jitter=0, grey=0, blur=0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def functional(open_clip: object) -> object:
    """torchvision's functions; importing open_clip first makes torchvision importable beside any torch."""
    from torchvision.transforms.v2 import functional as module  # noqa: PLC0415

    return module


def pictures(count: int, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    small = torch.rand(count, 3, 8, 8, generator=generator)
    return (255 * torch.nn.functional.interpolate(small, size=(side, side), mode="bilinear")).to(torch.uint8)


def views(canvas: Tensor, settings: TwoViews, seed: int = 0, view: int = 0, side: int = 20) -> Tensor:
    seeds = torch.arange(len(canvas)) + 1000 * seed
    everywhere = torch.ones(len(canvas), dtype=torch.bool)
    return random_view(canvas, everywhere, view_chances(seeds, view), settings, side)


# --- randomness ---------------------------------------------------------------------------------------------------


def test_a_picture_has_the_same_view_in_any_chunk_and_order() -> None:
    canvas, seeds = pictures(12), torch.arange(12) * 7_919
    mirrored = torch.arange(12) % 2 == 0
    whole = random_view(canvas, mirrored, view_chances(seeds, 1), TwoViews(), 20)
    order = torch.randperm(12)
    for rows in (*order.split(1), *order.split(5)):
        part = random_view(canvas[rows], mirrored[rows], view_chances(seeds[rows], 1), TwoViews(), 20)
        # The matrix products of a chunk may be blocked differently: a few last bits.
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-5)


def test_the_two_views_of_a_picture_differ_and_so_do_other_seeds() -> None:
    canvas = pictures(16)
    first, second, other = (
        views(canvas, TwoViews()),
        views(canvas, TwoViews(), 0, 1),
        views(canvas, TwoViews(), 1),
    )
    assert first.shape == (16, 3, 20, 20)
    assert 0 <= first.min() <= first.max() <= 1
    for pair in ((first, second), (first, other)):
        assert ((pair[0] - pair[1]).abs().mean(dim=(1, 2, 3)) > 0.01).all()


def test_random_numbers_are_uniform_and_independent_between_columns_and_views() -> None:
    first, second = (view_chances(torch.arange(20_000), view) for view in (0, 1))
    both = torch.cat([first, second], dim=1).double().numpy()
    assert both.min() >= 0
    assert both.max() < 1
    # 72 columns: the smallest of so many p-values is above 1e-5 but once in a thousand seeds; this seed is fixed.
    assert min(kstest(column, "uniform").pvalue for column in both.T) > 1e-5
    correlation = np.corrcoef(both.T) - np.eye(both.shape[1])
    assert np.abs(correlation).max() < 5 / math.sqrt(20_000)
    assert not torch.equal(first, second)


# --- crops --------------------------------------------------------------------------------------------------------


def test_crops_lie_in_the_picture_and_have_the_areas_and_aspects_of_the_settings() -> None:
    settings = TwoViews(area=(0.08, 0.5))
    left, top, width, height = crop_boxes(view_chances(torch.arange(4000), 0), settings)
    assert min(left.min(), top.min()) >= 0
    assert (left + width).max() <= 1 + 1e-6
    assert (top + height).max() <= 1 + 1e-6
    # Half of the picture at 4:3 still fits, so that no draw is refused and the distributions are the plain ones.
    assert kstest((width * height).numpy(), "uniform", (0.08, 0.42)).pvalue > 1e-3
    aspect = (width / height).log().numpy()
    assert kstest(aspect, "uniform", (math.log(0.75), 2 * math.log(4 / 3))).pvalue > 1e-3
    assert kstest((left / (1 - width)).numpy(), "uniform").pvalue > 1e-3


def test_a_crop_is_drawn_again_until_it_fits_and_cut_where_none_does() -> None:
    chance = view_chances(torch.arange(2000), 0)
    _, _, width, height = crop_boxes(chance, TwoViews(area=(0.9, 1.0), aspect=(0.5, 2.0)))
    assert max(width.max(), height.max()) <= 1
    assert (width * height > 0.89).float().mean() > 0.3
    _, _, width, height = crop_boxes(chance, TwoViews(area=(1.0, 1.0), aspect=(2.0, 2.0)))
    torch.testing.assert_close(width, torch.ones(2000))
    torch.testing.assert_close(height, torch.full((2000,), 0.5**0.5))


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.21, 0.4, 0.3, 0.25), (0.5, 0.13, 0.5, 0.87)])
def test_resizing_a_part_equals_pillows_antialiased_bicubic(box: tuple[float, float, float, float]) -> None:
    side, resolution = 48, 20
    plane = pictures(1, side)[0, 0].float()
    left, top, width, height = (torch.tensor([value]) for value in box)
    found = (
        resize_weights(top, height, side, resolution)[0]
        @ plane
        @ resize_weights(left, width, side, resolution)[0].T
    )
    x, y, w, h = (side * value for value in box)
    expected = Image.fromarray(plane.numpy()).resize(
        (resolution, resolution), Image.Resampling.BICUBIC, box=(x, y, x + w, y + h)
    )
    # Pillow's window ends at whole pixels, where the cubic is next to nothing: a hundredth of a grey level.
    torch.testing.assert_close(found, torch.from_numpy(np.array(expected)), rtol=0, atol=0.01)


def test_without_strength_a_view_is_the_picture_and_a_mirrored_one_its_mirror_where_allowed() -> None:
    canvas = pictures(6, 20)
    torch.testing.assert_close(views(canvas, STILL), canvas.float() / 255, rtol=0, atol=1e-5)
    always = TwoViews(area=(1.0, 1.0), aspect=(1.0, 1.0), mirror=1, jitter=0, grey=0, blur=0)
    torch.testing.assert_close(views(canvas, always), canvas.flip(3).float() / 255, rtol=0, atol=1e-5)
    never = torch.zeros(6, dtype=torch.bool)
    kept = random_view(canvas, never, view_chances(torch.arange(6), 0), always, 20)
    torch.testing.assert_close(kept, canvas.float() / 255, rtol=0, atol=1e-5)


# --- colours ------------------------------------------------------------------------------------------------------


def test_changes_of_colour_equal_torchvisions(functional: object) -> None:
    view = pictures(5).float() / 255
    zeros = torch.zeros_like(view)
    for factor in (0.2, 0.9, 1.8):
        by = torch.full((5,), factor)
        mean = luma(view).mean(dim=(2, 3), keepdim=True)
        for found, name in (
            (blend(view, zeros, by), "adjust_brightness"),
            (blend(view, mean, by), "adjust_contrast"),
            (blend(view, luma(view), by), "adjust_saturation"),
        ):
            expected = getattr(functional, name)(view, factor)
            # torchvision's weight of red is 0.2989, ours 0.299.
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
    for turn in (-0.5, -0.2, 0.0, 0.13, 0.2):
        expected = functional.adjust_hue(view, turn)  # type: ignore[attr-defined]
        torch.testing.assert_close(turn_hue(view, torch.full((5,), turn)), expected, rtol=0, atol=1e-5)


def test_the_changes_come_in_the_order_that_each_view_draws(functional: object) -> None:
    view = pictures(8).float() / 255
    chance = torch.rand(8, 9, generator=torch.Generator().manual_seed(1))
    chance[:, 0] = 0.5
    chance[3, 0] = 0.9  # above the probability: this one stays as it is
    found = jitter(view, chance, TwoViews(strength=0.5))
    assert torch.equal(found[3], view[3])
    names = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
    for row in (0, 1, 2, 4, 5, 6, 7):
        expected = view[row]
        for number in chance[row, 5:9].argsort().tolist():
            spread = 2 * float(chance[row, 1 + number]) - 1
            value = 0.1 * spread if number == 3 else 1 + 0.4 * spread
            expected = getattr(functional, names[number])(expected, value)
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-3)


def test_every_order_of_the_changes_is_as_likely_as_another() -> None:
    order = view_chances(torch.arange(24_000), 0)[:, 28:32].argsort(dim=1)
    numbers = (order * torch.tensor([64, 16, 4, 1])).sum(dim=1)
    counts = torch.unique(numbers, return_counts=True)[1]
    assert len(counts) == 24
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_blur_equals_torchvisions_with_a_width_for_each_view(functional: object) -> None:
    view = pictures(4, 60).float() / 255
    sigma = torch.tensor([0.1, 0.7, 1.3, 2.0])
    found = gaussian_blur(view, sigma)
    for row in range(4):
        expected = functional.gaussian_blur(view[row], [7, 7], [float(sigma[row])])  # type: ignore[attr-defined]
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-5)


def test_shares_of_views_are_those_of_the_settings() -> None:
    canvas = pictures(1, 20).expand(3000, -1, -1, -1)
    still = canvas.float() / 255
    for name, share, settings in (
        ("mirror", 0.5, replace(STILL, mirror=0.5)),
        ("jitter", 0.8, replace(STILL, jitter=0.8)),
        ("grey", 0.2, replace(STILL, grey=0.2)),
        ("blur", 0.5, replace(STILL, blur=0.5)),
    ):
        changed = ((views(canvas, settings) - still).abs().amax(dim=(1, 2, 3)) > 1e-4).float().mean()
        assert float(changed) == pytest.approx(share, abs=0.04), name
    grey = views(canvas[:50], replace(STILL, grey=1.0))
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"area": (0.0, 1.0)}, {"area": (0.5, 0.2)}, {"aspect": (2.0, 1.0)}, {"strength": 2.0}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            TwoViews(**wrong)
