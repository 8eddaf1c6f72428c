"""Draw two random views of each image, as SimCLR does (Chen et al. 2020, appendix A), for a whole batch at a time.

A view is a function of the image's own seed and of the index of the view. So a batch gives the same views whole, in
chunks, or shared among processes. Pixels are in 0..1 and are not normalised in between.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import SettingsError

_TRIES = 10  # crops drawn until one lies inside the image, as in the usual implementations
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
# The random numbers of a view: areas and aspects of the crops to try, then one for each of these.
_LEFT, _TOP, _MIRROR, _JITTER = (2 * _TRIES + place for place in range(4))
_GREY, _BLUR, _SIGMA = (_JITTER + 9 + place for place in range(3))
_COLUMNS = _SIGMA + 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: splitmix64's step


@dataclass(frozen=True, kw_only=True)
class TwoViews:
    """SimCLR's augmentations. Probabilities are in 0..1."""

    name: Literal["two-views"] = "two-views"
    area: tuple[float, float] = (0.08, 1.0)  # of a crop over the image's
    aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width over height of a crop, of a square image
    mirror: float = 0.5  # probability; never if left and right matter
    jitter: float = 0.8  # probability that colours change
    strength: float = 1.0  # the paper's s, of every change of colour: 1 for ImageNet, 0.5 for CIFAR-10
    grey: float = 0.2  # probability of no colour
    blur: float = 0.5  # probability; 0 for CIFAR-10
    sigma: tuple[float, float] = (0.1, 2.0)  # of the blur, in pixels of the view

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise SettingsError(
                f"area = {self.area}; expected two fractions of the image's area, the smaller one first"
            )
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise SettingsError(
                f"aspect = {self.aspect}; expected two numbers above 0, the smaller one first"
            )
        if not 0 <= self.strength <= 1.25:
            # A factor may fall below 1 by 0.8 s, and a hue may turn by 0.2 s either way.
            raise SettingsError(f"strength = {self.strength}; expected a number from 0 to 1.25")


def random_view(
    canvas: Tensor, mirrored: Tensor, chance: Tensor, settings: TwoViews, resolution: int
) -> Tensor:
    """Draw one view of each image.

    canvas: (batch, 3, side, side), uint8. mirrored: (batch,), bool; whether the image may be mirrored at all.
    chance: (batch, columns), `view_chances` of each image's seed and of the view.
    Returns (batch, 3, resolution, resolution), float32 in 0..1.
    """
    left, top, width, height = crop_boxes(chance, settings)
    pixels = canvas.to(torch.float32).div_(255)
    down = resize_weights(top, height, canvas.shape[2], resolution)
    across = resize_weights(left, width, canvas.shape[3], resolution)
    view = (down[:, None] @ pixels @ across[:, None].mT).clamp_(0, 1)
    flipped = mirrored & (chance[:, _MIRROR] < settings.mirror)
    view = torch.where(flipped[:, None, None, None], view.flip(3), view)
    view = jitter(view, chance[:, _JITTER : _JITTER + 9], settings)
    grey = (chance[:, _GREY] < settings.grey)[:, None, None, None]
    view = torch.where(grey, luma(view).expand_as(view), view)
    low, high = settings.sigma
    blurred = chance[:, _BLUR] < settings.blur
    if blurred.any():
        # Blurring only these rows costs less; the result of a row depends on the row alone.
        view = view.clone()
        view[blurred] = gaussian_blur(view[blurred], low + (high - low) * chance[blurred, _SIGMA])
    return view


def view_chances(seeds: Tensor, view: int) -> Tensor:
    """Return the random numbers of one view of each image: (batch, columns), float32 in [0, 1).

    seeds: (batch,), int64. The columns are 24 bits each of splitmix64 (Steele et al. 2014) of the hashed seed, from a
    start that depends on the view.
    """
    column = torch.arange(1 + view * _COLUMNS, 1 + (view + 1) * _COLUMNS, device=seeds.device)
    mixed = _mixed(_mixed(seeds)[:, None] + column * _signed(_GOLDEN))
    return _shifted(mixed, 40).to(torch.float32) / (1 << 24)


def crop_boxes(chance: Tensor, settings: TwoViews) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return left, top, width and height of each crop, (batch,) each, as fractions of the image's sides.

    The area and the logarithm of the aspect are uniform. The first of ten draws that fits into the image is taken; if
    none fits, the last one, with its sides cut to the image's.
    """
    low, high = settings.area
    area = low + (high - low) * chance[:, :_TRIES]
    narrow, wide = math.log(settings.aspect[0]), math.log(settings.aspect[1])
    aspect = torch.exp(narrow + (wide - narrow) * chance[:, _TRIES : 2 * _TRIES])
    width, height = (area * aspect).sqrt(), (area / aspect).sqrt()
    fits = (width <= 1) & (height <= 1)
    fits[:, -1] = True
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    width, height = (side.gather(1, first)[:, 0].clamp(max=1) for side in (width, height))
    return (1 - width) * chance[:, _LEFT], (1 - height) * chance[:, _TOP], width, height


def resize_weights(start: Tensor, length: Tensor, side: int, resolution: int) -> Tensor:
    """Return the linear map that resizes a part of a row of pixels: (batch, resolution, side), rows with the sum 1.

    start, length: (batch,), of the part, as fractions of `side`. The filter is bicubic with a = -1/2, widened for
    reduction, as in Pillow and antialiased torch. Pixels just outside of the part contribute.
    """
    scale = (length * side / resolution)[:, None, None]
    wide = scale.clamp(min=1)
    number = torch.arange(resolution, device=start.device)[None, :, None] + 0.5
    centre = (start * side)[:, None, None] + number * scale
    pixel = torch.arange(side, device=start.device)[None, None, :] + 0.5
    distance = ((pixel - centre) / wide).abs()
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    return weights / weights.sum(dim=2, keepdim=True)


def jitter(view: Tensor, chance: Tensor, settings: TwoViews) -> Tensor:
    """Change brightness, contrast, saturation and hue, in a random order per view.

    view: (batch, 3, n, n) in 0..1. chance: (batch, 9): one that decides on any change, four factors, and four whose
    order is the order of the changes.
    """
    strength = settings.strength
    factor = 1 + 0.8 * strength * (2 * chance[:, 1:4] - 1)
    turn = 0.2 * strength * (2 * chance[:, 4] - 1)
    order = chance[:, 5:9].argsort(dim=1)
    wanted = chance[:, 0] < settings.jitter
    changes: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
        lambda rows, part: blend(part, torch.zeros_like(part), factor[rows, 0]),
        lambda rows, part: blend(part, luma(part).mean(dim=(2, 3), keepdim=True), factor[rows, 1]),
        lambda rows, part: blend(part, luma(part), factor[rows, 2]),
        lambda rows, part: turn_hue(part, turn[rows]),
    )
    view = view.clone()
    for place in range(4):
        for number, change in enumerate(changes):
            rows = (wanted & (order[:, place] == number)).nonzero()[:, 0]
            if len(rows):
                view[rows] = change(rows, view[rows])
    return view


def luma(view: Tensor) -> Tensor:
    """Return the grey value of each pixel, (batch, 1, n, n)."""
    return (view * torch.tensor(_LUMA, device=view.device)[:, None, None]).sum(dim=1, keepdim=True)


def blend(view: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return factor * view + (1 - factor) * other, clamped to 0..1. factor: (batch,)."""
    weight = factor[:, None, None, None]
    return (weight * view + (1 - weight) * other).clamp_(0, 1)


def turn_hue(view: Tensor, turn: Tensor) -> Tensor:
    """Change the hue, at the same saturation and value (of HSV). turn: (batch,), turns of the colour wheel."""
    red, green, blue = view.unbind(dim=1)
    value, least = view.amax(dim=1), view.amin(dim=1)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue + 6 * turn[:, None, None]
    # A channel has its maximum within 1/6 of a turn of its own hue, and falls to the minimum at the opposite side.
    away = torch.stack([(offset + hue) % 6 for offset in (5.0, 3.0, 1.0)], dim=1)
    fall = torch.minimum(away, 4 - away).clamp(0, 1)
    return (value[:, None] - chroma[:, None] * fall).clamp_(0, 1)


def gaussian_blur(view: Tensor, sigma: Tensor) -> Tensor:
    """Blur each view with a Gaussian a tenth of its side wide. sigma: (batch,), in pixels. Edges are reflected."""
    radius = max(1, view.shape[-1] // 20)
    tap = torch.arange(-radius, radius + 1, device=view.device)
    weights = torch.exp(-0.5 * (tap / sigma[:, None]).square())
    weights = (weights / weights.sum(dim=1, keepdim=True))[:, :, None, None, None]
    for axis, edges in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded = F.pad(view, edges, mode="reflect")
        count = view.shape[axis]
        view = torch.stack(
            [weights[:, number] * padded.narrow(axis, number, count) for number in range(2 * radius + 1)]
        ).sum(dim=0)
    return view


def _mixed(bits: Tensor) -> Tensor:
    """Apply splitmix64's finaliser to 64 bits stored as int64."""
    bits = (bits ^ _shifted(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shifted(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, count: int) -> Tensor:
    """Shift right, filling with zeros."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
