"""Where names can stand beside the points of a plot without touching what is there. Plane geometry, in any unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Distances from a point that are tried, as multiples of a name's height: the nearest free place is taken.
_DISTANCES = (1.0, 1.3, 1.8, 2.6, 3.6, 4.8, 6.2)
# What one more height of distance may cost: so much of the name's area covered.
_PATIENCE = 0.02
_AIR = 0.12  # of a name's height, kept free around it


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

    def shared(self, other: "Box") -> float:
        """The area that lies in both."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        tall = min(self.top, other.top) - max(self.bottom, other.bottom)
        return wide * tall if wide > 0 and tall > 0 else 0.0

    def nearest(self, point: tuple[float, float]) -> tuple[float, float]:
        """The place in the box that is closest to `point`."""
        x, y = point
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    @classmethod
    def around(cls, x: float, y: float, reach: float) -> "Box":
        return cls(x - reach, y - reach, x + reach, y + reach)


@dataclass(frozen=True)
class Place:
    """Where a name stands."""

    left: float
    middle: float
    box: Box  # with a little air around it
    far: bool  # away enough from its point that a line should lead to it


def place_name(
    point: tuple[float, float], size: tuple[float, float], taken: Sequence[Box], frame: Box
) -> Place:
    """The place for a name of `size` (width, height) near `point` that covers least of what is `taken`.

    Near places come first, those on the right of the point first among them; so a name moves away only from what it
    would cover. What lies outside `frame` counts four times: it might be cut off.
    """

    def cost(place: Place) -> float:
        outside = place.box.area - place.box.shared(frame)
        return (sum(place.box.shared(box) for box in taken) + 4 * outside) / place.box.area

    best, lowest = None, float("inf")
    for distance, place in _around(point, *size):
        total = cost(place) + _PATIENCE * distance
        if total < lowest:
            best, lowest = place, total
    assert best is not None
    return best


def _around(point: tuple[float, float], width: float, height: float) -> Iterator[tuple[float, Place]]:
    """Places and what they cost in distance: right, left, above, below, and the corners between."""
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
