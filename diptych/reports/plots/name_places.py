"""Where names can stand beside the points of a plot without touching what is there. Plane geometry, in any unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Distances from a point that are tried, as multiples of a name's height: the nearest free place is taken.
_DISTANCES = (1.0, 1.3, 1.8, 2.6, 3.6, 4.8, 6.2)
# What one more height of distance may cost: so much of the name's area covered.
_PATIENCE = 0.02
_AIR = 0.12  # of a name's height, kept free around it

Corners = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """A rectangle with its sides along the axes."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)

    def shared(self, others: Corners) -> Corners:
        """Return the areas that lie in this box and in each of (n, 4) others, whose rows are as `corners`."""
        wide = np.minimum(self.right, others[:, 2]) - np.maximum(self.left, others[:, 0])
        tall = np.minimum(self.top, others[:, 3]) - np.maximum(self.bottom, others[:, 1])
        areas: Corners = np.maximum(wide, 0.0) * np.maximum(tall, 0.0)
        return areas

    def nearest(self, point: tuple[float, float]) -> tuple[float, float]:
        """Return the place in the box that is closest to `point`."""
        x, y = point
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    @classmethod
    def around(cls, x: float, y: float, reach: float) -> "Box":
        return cls(x - reach, y - reach, x + reach, y + reach)


@dataclass(frozen=True)
class Place:
    """The place of a name."""

    left: float
    middle: float
    box: Box  # with a little air around it
    far: bool  # away enough from its point that a line should lead to it


def corners(boxes: Sequence[Box]) -> Corners:
    """Return boxes as (n, 4): left, bottom, right, top."""
    return np.array([(box.left, box.bottom, box.right, box.top) for box in boxes]).reshape(-1, 4)


def place_name(
    point: tuple[float, float], size: tuple[float, float], taken: Sequence[Box], frame: Box
) -> Place:
    """Return the place for a name of `size` (width, height) near `point` that covers least of what is `taken`.

    Near places come first, those on the right of the point first among them; so a name moves away only from what it
    would cover. What lies outside `frame` counts four times: it might be cut off.
    """

    boxes, whole = corners(taken), corners([frame])

    def cost(place: Place) -> float:
        outside = place.box.area - float(place.box.shared(whole).sum())
        return (float(place.box.shared(boxes).sum()) + 4 * outside) / place.box.area

    best, lowest = None, float("inf")
    for distance, place in _around(point, *size):
        total = cost(place) + _PATIENCE * distance
        if total < lowest:
            best, lowest = place, total
    assert best is not None
    return best


def _around(point: tuple[float, float], width: float, height: float) -> Iterator[tuple[float, Place]]:
    """Yield places and what they cost in distance: right, left, above, below, and the corners between."""
    for number, distance in enumerate(_DISTANCES):
        gap = distance * height
        slant, rise = 0.7 * gap, 0.8 * (gap + height / 2)
        offsets = (
            (gap, 0.0),
            (-gap - width, 0.0),
            (slant, rise),
            (slant, -rise),
            (-slant - width, rise),
            (-slant - width, -rise),
            (-width / 2, gap + height / 2),
            (-width / 2, -gap - height / 2),
        )
        for turn, (right, up) in enumerate(offsets):
            left, middle = point[0] + right, point[1] + up
            air = _AIR * height
            box = Box(left - air, middle - height / 2 - air, left + width + air, middle + height / 2 + air)
            yield distance + 0.1 * turn, Place(left, middle, box, far=number > 2)
