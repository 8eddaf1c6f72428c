"""Draw random views of training images, for a whole batch at a time.

The randomness of a batch is a table with one row per sample, drawn from an explicit seed. The view of a sample depends
on its row alone, so a batch gives the same views whole, in chunks, or shared among processes.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.data.images.two_views import TwoViews

_COLUMNS = (
    32  # random numbers per sample; more than `Drawings` uses, so that a new use leaves the others unchanged
)


@dataclass(frozen=True, kw_only=True)
class Drawings:
    """Augmentation of drawings with a transparent background: the style varies, the subject stays.

    Made for emoji, icons and clip art, where one subject is drawn by several designers. Probabilities are in 0..1.
    Images that fill a rectangle, as photographs do, get a random square in place of `scale` and `shift` where `zoom`
    is given, so that one recipe trains on both.
    """

    name: Literal["drawings"] = "drawings"
    rotation: float = 15.0  # degrees, either way
    shear: float = 8.0  # degrees, either way
    scale: tuple[float, float] = (0.7, 1.15)  # of the image's side
    stretch: float = 0.12  # of one side against the other, either way
    shift: float = 0.1  # of the view's side, either way
    warp: float = 0.0  # of the view's half side: the most that a smooth wave moves a point, either way
    mirror: float = 0.5  # probability; never if left and right matter
    background: float = 0.6  # probability of a random colour in place of white
    brightness: float = 0.3  # factor 1 - b .. 1 + b
    contrast: float = 0.3  # likewise
    saturation: float = 0.5  # likewise
    hue: float = 0.04  # turns of the colour wheel, either way
    grey: float = 0.1  # probability of no colour
    tint: float = 0.5  # probability of a colour for a drawing without one
    shade: float = 0.5  # probability of light from one side
    outline: float = 0.15  # probability of a dark line around the figure
    blur: float = 0.2  # probability
    halve: float = 0.0  # probability of half the resolution, enlarged again; never of a view with blur
    # Into an image that fills a rectangle; 1 shows its largest square.
    zoom: tuple[float, float] | None = None
    erase: float = 0.25  # probability of a rectangle lost


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """CLIP's only augmentation: a random square of the image, resized to the model's resolution."""

    name: Literal["random-crop"] = "random-crop"


@dataclass(frozen=True, kw_only=True)
class CentreCrop:
    """No augmentation: the image as the model sees it in use."""

    name: Literal["none"] = "none"


Augmentation = Drawings | RandomCrop | CentreCrop | TwoViews


def random_table(seed: int, count: int) -> Tensor:
    """Draw the random numbers of `count` samples: (count, columns) in 0..1, a function of the seed alone."""
    return torch.rand(count, _COLUMNS, generator=torch.Generator().manual_seed(seed % (1 << 63)))


def draw_views(
    canvas: Tensor, mirrored: Tensor, chance: Tensor, settings: Drawings, resolution: int
) -> Tensor:
    """Draw one view of each drawing.

    canvas: (batch, 4, side, side), uint8, red, green, blue and alpha, not premultiplied.
    mirrored: (batch,), bool; whether the sample may be mirrored at all.
    chance: (batch, columns), the batch's rows of `random_table`.
    Returns (batch, 3, resolution, resolution), float32 in 0..1.
    """
    drawn = canvas.to(torch.float32).div_(255)
    alpha = drawn[:, 3:]
    colour = _jitter(drawn[:, :3], alpha, chance, settings)
    premultiplied = torch.cat([colour * alpha, alpha], dim=1)
    grid = _affine_grid(alpha, chance, mirrored, settings, resolution)
    warped = F.grid_sample(premultiplied, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    figure, alpha = warped[:, :3], warped[:, 3:]
    figure, alpha = _outline(figure, alpha, chance, settings)
    figure = _shade(figure, chance, settings)
    view = figure + (1 - alpha) * _background(chance, settings)
    view = _halve(_blur(view, chance, settings), chance, settings)
    return _erase(view, chance, settings).clamp_(0, 1)


def is_mirrored(mirrored: Tensor, chance: Tensor, settings: Drawings) -> Tensor:
    """Return whether each view is mirrored: (batch,), bool. Arguments as in `draw_views`."""
    return mirrored & (chance[:, 4] < settings.mirror)


def _affine_grid(
    alpha: Tensor, chance: Tensor, mirrored: Tensor, settings: Drawings, resolution: int
) -> Tensor:
    angle = _signed(chance[:, 0]) * math.radians(settings.rotation)
    shear = (_signed(chance[:, 1]) * math.radians(settings.shear)).tan()
    low, high = settings.scale
    size = low + (high - low) * chance[:, 2]
    shift = settings.shift * 2 * _signed(chance[:, 5:7])
    if settings.zoom:
        fills, extent = _rectangles(alpha)
        low, high = settings.zoom
        zoomed = (low + (high - low) * chance[:, 2]) / extent.amin(dim=1)
        size = torch.where(fills, zoomed, size)
        room = (extent - 1 / zoomed[:, None]).clamp(min=0)  # how far the square may lie from the centre
        shift = torch.where(fills[:, None], room * _signed(chance[:, 5:7]), shift)
    wide = size * (1 + settings.stretch * _signed(chance[:, 3]))
    flip = torch.where(is_mirrored(mirrored, chance, settings), -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    # Rows of the map from the view to the canvas: the inverse of scale, shear, rotation and shift.
    top = torch.stack([flip * cos / wide, flip * (sin + shear) / wide, shift[:, 0]], dim=1)
    bottom = torch.stack([-sin / size, cos / size, shift[:, 1]], dim=1)
    theta = torch.stack([top, bottom], dim=1)  # (batch, 2, 3)
    grid = F.affine_grid(theta, [len(theta), 1, resolution, resolution], align_corners=False)
    return grid + _wave(chance, settings, resolution) if settings.warp else grid


def _signed(chance: Tensor) -> Tensor:
    return 2 * chance - 1


def _rectangles(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Tell which images fill a rectangle around the centre: (batch,), bool; and its extent, (batch, 2).

    alpha: (batch, 1, side, side), 0..1. extent: width and height as shares of the canvas.
    """
    opaque = alpha[:, 0] > 0.5
    columns, rows = opaque.any(dim=1).sum(dim=1), opaque.any(dim=2).sum(dim=1)
    fills = (opaque.flatten(1).sum(dim=1) == columns * rows) & (columns > 0)
    extent = torch.stack([columns, rows], dim=1) / alpha.shape[-1]
    return fills, extent.clamp(min=1 / alpha.shape[-1])


def _wave(chance: Tensor, settings: Drawings, resolution: int) -> Tensor:
    """Return a slow wave along each axis, (batch, resolution, resolution, 2), which varies the proportions."""
    ramp = torch.linspace(-math.pi, math.pi, resolution, device=chance.device)
    # From half a period to one and a half across the view.
    rate, phase = 0.5 + chance[:, 28:30], 2 * math.pi * chance[:, 30:32]
    waves = settings.warp * torch.sin(rate[..., None] * ramp + phase[..., None])  # (batch, 2, resolution)
    across = waves[:, 0, :, None].expand(
        -1, resolution, resolution
    )  # a shift across that depends on the height
    down = waves[:, 1, None, :].expand(-1, resolution, resolution)
    return torch.stack([across, down], dim=-1)


def _jitter(colour: Tensor, alpha: Tensor, chance: Tensor, settings: Drawings) -> Tensor:
    """Change brightness, contrast, saturation and hue with one 3x3 matrix and one offset per sample."""

    def factor(column: int, strength: float) -> Tensor:
        return 1 + strength * (2 * chance[:, column] - 1)

    count = len(colour)
    identity = torch.eye(3, device=colour.device)
    luma = torch.tensor([0.299, 0.587, 0.114], device=colour.device)
    to_grey = luma.expand(3, 3)
    saturation = factor(9, settings.saturation)
    saturation = torch.where(chance[:, 10] < settings.grey, 0.0, saturation)[:, None, None]
    turn = 2 * math.pi * settings.hue * (2 * chance[:, 11] - 1)
    # Hue is a rotation about the grey axis (Rodrigues' formula with the axis (1, 1, 1) / sqrt 3).
    axis = 3**-0.5
    cross = axis * torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=colour.device)
    turn = turn[:, None, None]
    rotation = (
        turn.cos() * identity + turn.sin() * cross + (1 - turn.cos()) * torch.full_like(identity, 1 / 3)
    )
    matrix = (saturation * identity + (1 - saturation) * to_grey) @ rotation
    contrast = factor(8, settings.contrast)
    gain = contrast * factor(7, settings.brightness)
    offset = 0.5 * (1 - contrast)
    flat = colour.flatten(2)  # (batch, 3, pixels)
    jittered = torch.baddbmm(offset[:, None, None].expand(count, 3, 1), gain[:, None, None] * matrix, flat)
    # Icons are one flat black or grey: some of them get a colour.
    weight = alpha.flatten(2)
    mean = (flat * weight).sum(-1) / weight.sum(-1).clamp(min=1e-3)
    spread = ((flat - mean[..., None]).abs() * weight).sum(-1).sum(-1) / weight.sum(-1)[:, 0].clamp(min=1e-3)
    tinted = (spread < 0.02) & (chance[:, 12] < settings.tint)
    jittered = jittered + torch.where(tinted[:, None], chance[:, 13:16] * 0.85, 0.0)[..., None]
    return jittered.clamp_(0, 1).view_as(colour)


def _outline(figure: Tensor, alpha: Tensor, chance: Tensor, settings: Drawings) -> tuple[Tensor, Tensor]:
    chosen = (chance[:, 16] < settings.outline).nonzero()[:, 0]
    if not len(chosen):
        return figure, alpha
    grown = F.max_pool2d(alpha[chosen], 3, stride=1, padding=1)
    # The line is nearly black and lies behind the figure: premultiplied, it adds its tone outside of the figure.
    tone = (0.2 * chance[chosen, 17])[:, None, None, None]
    figure, alpha = figure.clone(), alpha.clone()
    figure[chosen] += tone * (grown - alpha[chosen])
    alpha[chosen] = grown
    return figure, alpha


def _shade(figure: Tensor, chance: Tensor, settings: Drawings) -> Tensor:
    side = figure.shape[-1]
    strength = torch.where(chance[:, 18] < settings.shade, 0.5 * chance[:, 19], 0.0)
    angle = 2 * math.pi * chance[:, 20]
    ramp = torch.linspace(-1, 1, side, device=figure.device)
    along = (
        angle.cos()[:, None, None] * ramp[None, None, :] + angle.sin()[:, None, None] * ramp[None, :, None]
    )
    return figure * (1 + strength[:, None, None] * along)[:, None]


def _background(chance: Tensor, settings: Drawings) -> Tensor:
    plain = torch.ones_like(chance[:, 21:24])
    colour = torch.where((chance[:, 24] < settings.background)[:, None], chance[:, 21:24], plain)
    return colour[:, :, None, None]


def _blur(view: Tensor, chance: Tensor, settings: Drawings) -> Tensor:
    chosen = (chance[:, 25] < settings.blur).nonzero()[:, 0]
    if not len(chosen):
        return view
    view = view.clone()
    padded = F.pad(view[chosen], (1, 1, 1, 1), mode="replicate")
    view[chosen] = F.avg_pool2d(padded, 3, stride=1)
    return view


def _halve(view: Tensor, chance: Tensor, settings: Drawings) -> Tensor:
    # The range of the number that chose the blur, just above it.
    above = chance[:, 25] - settings.blur
    chosen = ((above >= 0) & (above < settings.halve)).nonzero()[:, 0]
    if not len(chosen):
        return view
    view = view.clone()
    half = F.avg_pool2d(view[chosen], 2)
    view[chosen] = F.interpolate(half, size=view.shape[-2:], mode="bicubic", align_corners=False)
    return view


def _erase(view: Tensor, chance: Tensor, settings: Drawings) -> Tensor:
    side = view.shape[-1]
    position = torch.arange(side, device=view.device)
    extent = side * 0.4
    left, top = chance[:, 26] * side, chance[:, 27] * side
    # One random number serves twice: below the probability it is uniform again.
    erased = chance[:, 17] < settings.erase
    size = extent * (0.3 + 0.7 * chance[:, 17] / max(settings.erase, 1e-6))
    across = (position >= left[:, None] - size[:, None] / 2) & (position < left[:, None] + size[:, None] / 2)
    down = (position >= top[:, None] - size[:, None] / 2) & (position < top[:, None] + size[:, None] / 2)
    lost = across[:, None, :] & down[:, :, None] & erased[:, None, None]
    return torch.where(lost[:, None], chance[:, 13:16, None, None], view)
