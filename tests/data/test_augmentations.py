"""Views of drawings: what must hold for any of them, and each change against plain arithmetic."""

import dataclasses

import pytest
import torch
from torch import Tensor

from diptych.data.images.augmentations import Drawings, draw_views, random_table

STILL = Drawings(
    rotation=0, shear=0, scale=(1.0, 1.0), stretch=0, shift=0, mirror=0, background=0, brightness=0, contrast=0,
    saturation=0, hue=0, grey=0, tint=0, shade=0, outline=0, blur=0, erase=0,
)  # fmt: skip


def pictures(count: int, side: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    canvas = torch.randint(0, 256, (count, 4, side, side), dtype=torch.uint8, generator=generator)
    canvas[:, 3] = 255 * (torch.rand(count, side, side, generator=generator) < 0.6)
    return canvas


def views(canvas: Tensor, settings: Drawings, seed: int = 0, side: int = 24) -> Tensor:
    mirrored = torch.ones(len(canvas), dtype=torch.bool)
    return draw_views(canvas, mirrored, random_table(seed, len(canvas)), settings, side)


def on_white(canvas: Tensor) -> Tensor:
    colour, alpha = canvas[:, :3].float() / 255, canvas[:, 3:].float() / 255
    return colour * alpha + 1 - alpha


def test_a_batch_gives_the_same_views_whole_and_in_chunks() -> None:
    canvas, chance = pictures(12), random_table(7, 12)
    mirrored = torch.arange(12) % 2 == 0
    whole = draw_views(canvas, mirrored, chance, Drawings(), 20)
    for chunk in (1, 5):
        pieces = [
            draw_views(
                canvas[at : at + chunk], mirrored[at : at + chunk], chance[at : at + chunk], Drawings(), 20
            )
            for at in range(0, 12, chunk)
        ]
        # The matrix products of a chunk may be blocked differently: a few last bits.
        torch.testing.assert_close(torch.cat(pieces), whole, rtol=0, atol=1e-5)


def test_views_are_pixels_between_0_and_1_and_differ_between_seeds() -> None:
    canvas = pictures(8)
    first, second = views(canvas, Drawings(), 0, 16), views(canvas, Drawings(), 1, 16)
    assert first.shape == (8, 3, 16, 16)
    assert 0 <= first.min() <= first.max() <= 1
    assert (first - second).abs().mean() > 0.05


def test_without_strength_a_view_is_the_drawing_on_white() -> None:
    canvas = pictures(4)
    torch.testing.assert_close(views(canvas, STILL), on_white(canvas), rtol=0, atol=1e-5)


def test_mirroring_happens_only_where_it_is_allowed() -> None:
    canvas = pictures(4)
    always = dataclasses.replace(STILL, mirror=1.0)
    allowed = torch.tensor([True, False, True, False])
    seen = draw_views(canvas, allowed, random_table(0, 4), always, 24)
    expected = torch.where(allowed[:, None, None, None], on_white(canvas).flip(-1), on_white(canvas))
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-4)


def test_grey_is_the_luma_of_every_pixel() -> None:
    canvas = pictures(3)
    canvas[:, 3] = 255
    seen = views(canvas, dataclasses.replace(STILL, grey=1.0))
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    expected = (canvas[:, :3].float() / 255 * luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-5)


def test_a_turn_of_hue_keeps_greys_and_the_mean_of_the_channels() -> None:
    grey = torch.full((2, 4, 8, 8), 128, dtype=torch.uint8)
    grey[:, 3] = 255
    turned = views(grey, dataclasses.replace(STILL, hue=0.5), side=8)
    torch.testing.assert_close(turned, torch.full_like(turned, 128 / 255), rtol=0, atol=1e-5)
    colour = torch.tensor([120, 130, 140, 255], dtype=torch.uint8)[None, :, None, None].expand(2, 4, 8, 8)
    turned = views(colour.contiguous(), dataclasses.replace(STILL, hue=0.5), side=8)
    torch.testing.assert_close(turned.mean(1), torch.full((2, 8, 8), 130 / 255), rtol=0, atol=1e-5)
    assert (turned[0] - turned[1]).abs().max() > 0.01


def test_backgrounds_lie_behind_the_figure_only() -> None:
    canvas = pictures(3)
    seen = views(canvas, dataclasses.replace(STILL, background=1.0))
    opaque = (canvas[:, 3:] == 255).expand(-1, 3, -1, -1)
    torch.testing.assert_close(seen[opaque], on_white(canvas)[opaque], rtol=0, atol=1e-5)
    for row in range(3):
        behind = seen[row][:, canvas[row, 3] == 0]
        assert torch.allclose(behind, behind[:, :1].expand_as(behind), atol=1e-5)


def test_flat_icons_are_tinted_and_coloured_drawings_are_not() -> None:
    icon = torch.zeros(2, 4, 8, 8, dtype=torch.uint8)
    icon[:, 3, 2:6, 2:6] = 255
    drawing = pictures(2, 8)
    tint = dataclasses.replace(STILL, tint=1.0)
    assert views(icon, tint, side=8)[:, :, 4, 4].amax() > 0.1
    torch.testing.assert_close(views(drawing, tint, side=8), on_white(drawing), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        (dataclasses.replace(STILL, erase=0.25), 0.25),
        (dataclasses.replace(STILL, blur=0.3), 0.3),
        (dataclasses.replace(STILL, halve=0.4), 0.4),
        (dataclasses.replace(STILL, outline=0.2), 0.2),
        (dataclasses.replace(STILL, shade=0.5), 0.5),
    ],
    ids=["erase", "blur", "halve", "outline", "shade"],
)
def test_a_probability_is_the_share_of_changed_views(settings: Drawings, share: float) -> None:
    canvas = pictures(1).expand(2_000, -1, -1, -1)
    still, changed = views(canvas, STILL), views(canvas, settings)
    changed_share = ((still - changed).abs().amax(dim=(1, 2, 3)) > 1e-4).float().mean().item()
    # Four standard errors over 2,000 views, and the few rectangles that fall outside.
    assert changed_share == pytest.approx(share, abs=0.05)


def test_half_the_resolution_keeps_the_mean_of_each_block_of_four_in_a_smooth_image() -> None:
    ramp = torch.linspace(40, 200, 24).to(torch.uint8)
    canvas = torch.stack([ramp.expand(24, 24)] * 3 + [torch.full((24, 24), 255, dtype=torch.uint8)])[None]
    seen = views(canvas, dataclasses.replace(STILL, halve=1.0))
    # Bicubic interpolation gives a straight line back, but for the two pixels at each end, where it repeats the last.
    torch.testing.assert_close(seen[..., 4:-4], on_white(canvas)[..., 4:-4], rtol=0, atol=2 / 255)
    noise = pictures(1)
    noise[:, 3] = 255
    blurred = views(noise, dataclasses.replace(STILL, halve=1.0))
    blocks = torch.nn.functional.avg_pool2d(on_white(noise), 2)
    expected = torch.nn.functional.interpolate(blocks, scale_factor=2, mode="bicubic").clamp(0, 1)
    torch.testing.assert_close(blurred, expected, rtol=0, atol=1e-5)


def photograph(width: int, height: int, side: int = 24) -> Tensor:
    """Return an opaque photograph on a transparent canvas; red is the column, green the row."""
    canvas = torch.zeros(1, 4, side, side, dtype=torch.uint8)
    left, top = (side - width) // 2, (side - height) // 2
    inside = canvas[0, :, top : top + height, left : left + width]
    inside[0] = torch.linspace(0, 255, width).round().to(torch.uint8)
    inside[1] = torch.linspace(0, 255, height).round().to(torch.uint8)[:, None]
    inside[3] = 255
    return canvas


@pytest.mark.parametrize(("width", "height"), [(24, 24), (24, 12), (10, 20)])
def test_zoom_shows_squares_that_lie_inside_a_photograph(width: int, height: int) -> None:
    canvas = photograph(width, height).expand(400, -1, -1, -1)
    zoomed = views(canvas, dataclasses.replace(STILL, zoom=(1.0, 1.5)), side=4)
    assert zoomed[:, 2].max() < 0.01  # the photograph has no blue, and what is behind it is white
    # 1 shows the largest square; its side is the shorter side, wherever it lies.
    largest = views(canvas, dataclasses.replace(STILL, zoom=(1.0, 1.0)), side=8)
    spans = [(largest[:, at].amax((1, 2)) - largest[:, at].amin((1, 2))) for at in (0, 1)]
    for span, length in zip(spans, (width, height), strict=True):
        # From the centre of the first of 8 pixels to that of the last.
        assert span.mean().item() == pytest.approx(7 / 8 * min(width, height) / (length - 1), abs=0.02)
    places = largest[:, 0 if width > height else 1].mean((1, 2))
    assert (places.std() > 0.05) == (width != height)


def test_zoom_leaves_drawings_as_they_are() -> None:
    canvas = pictures(4)
    zoom = dataclasses.replace(Drawings(), zoom=(1.5, 2.0))
    assert torch.equal(views(canvas, zoom), views(canvas, Drawings()))


def test_random_numbers_are_a_function_of_the_seed() -> None:
    assert torch.equal(random_table(11, 4), random_table(11, 4))
    assert torch.equal(random_table(11, 4), random_table(11, 9)[:4])
    assert not torch.equal(random_table(11, 4), random_table(12, 4))
