"""Compose and draw scenes of one or two coloured shapes.

All of a scene comes from one random generator, so a scene is a function of its seed alone. Lengths are fractions of the
image's side, so one scene can be drawn at any size.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

SHAPES = ("circle", "square", "triangle", "cross", "star", "ring")
COLOURS = {
    "red": (214, 39, 40),
    "orange": (255, 140, 0),
    "yellow": (250, 220, 40),
    "green": (44, 150, 60),
    "cyan": (40, 200, 210),
    "blue": (40, 70, 200),
    "purple": (130, 60, 170),
    "pink": (250, 130, 190),
}
RELATIONS = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

CLASSES = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
# One shape of each colour that no training caption names: a model must compose colour and shape to recognise it.
UNSEEN = frozenset((colour, SHAPES[number % len(SHAPES)]) for number, colour in enumerate(COLOURS))
SEEN = tuple(each for each in CLASSES if each not in UNSEEN)

_FINE = 3  # samples per pixel and axis: edges are the mean of nine


@dataclass(frozen=True)
class Thing:
    """A coloured shape. centre: across and down; radius: of the circle around it; turn: radians."""

    colour: str
    shape: str
    size: str  # "small" or "large"
    centre: tuple[float, float]
    radius: float
    turn: float

    @property
    def combination(self) -> tuple[str, str]:
        return self.colour, self.shape


@dataclass(frozen=True)
class Scene:
    """The content of an image. relation: of the first thing to the second; "" for a single thing.

    ground: the colour behind the things: red, green and blue in 0..255, a grey level with a slight tint.
    """

    things: tuple[Thing, ...]
    relation: str
    ground: tuple[int, int, int]

    @property
    def is_bright(self) -> bool:
        return sum(self.ground) > 3 * 128


def single_scene(random: np.random.Generator, combination: tuple[str, str]) -> Scene:
    """Compose a scene of one thing at a random position."""
    small = bool(random.random() < 0.5)
    radius = random.uniform(0.14, 0.2) if small else random.uniform(0.27, 0.36)
    x, y = random.uniform(radius, 1 - radius, 2)
    return Scene((_thing(random, combination, small, (x, y), radius),), "", _ground(random))


def pair_scene(
    random: np.random.Generator, combinations: tuple[tuple[str, str], tuple[str, str]], relation: str
) -> Scene:
    """Compose a scene of two things beside or above each other, the first in the given relation to the second."""
    near, far = random.uniform(0.22, 0.3), random.uniform(0.7, 0.78)
    drift = 0.5 + random.uniform(-0.18, 0.18) + np.array([-0.05, 0.05]) * random.uniform(-1, 1)
    first, second = (near, far) if relation in ("left of", "above") else (far, near)
    things = []
    for combination, along, across in zip(combinations, (first, second), drift.tolist(), strict=True):
        small = bool(random.random() < 0.5)
        radius = random.uniform(0.12, 0.15) if small else random.uniform(0.19, 0.22)
        centre = (along, across) if relation in ("left of", "right of") else (across, along)
        things.append(_thing(random, combination, small, centre, radius))
    return Scene(tuple(things), relation, _ground(random))


def draw(scene: Scene, side: int, random: np.random.Generator) -> bytes:
    """Draw a scene as a PNG file, side x side pixels; `random` gives the noise of its pixels."""
    pixels = np.broadcast_to(np.array(scene.ground, np.float64), (side, side, 3)).copy()
    for thing in scene.things:
        cover = coverage(thing, side)[..., None]
        pixels = cover * np.array(COLOURS[thing.colour]) + (1 - cover) * pixels
    pixels += random.normal(0, 4, pixels.shape)
    file = io.BytesIO()
    Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def coverage(thing: Thing, side: int) -> npt.NDArray[np.float64]:
    """Return the fraction of each pixel that a thing covers: (side, side), rows from the top."""
    places = (np.arange(side * _FINE) + 0.5) / (side * _FINE)
    x = (places[None, :] - thing.centre[0]) / thing.radius
    y = (places[:, None] - thing.centre[1]) / thing.radius
    cos, sin = math.cos(thing.turn), math.sin(thing.turn)
    inside = _inside(thing.shape, cos * x + sin * y, cos * y - sin * x)
    whole: npt.NDArray[np.float64] = inside.reshape(side, _FINE, side, _FINE).mean(axis=(1, 3))
    return whole


def _inside(shape: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return whether each point lies in a shape of radius 1 around 0; y points down."""
    if shape == "circle":
        return x * x + y * y <= 0.8
    if shape == "ring":
        square = x * x + y * y
        return (square <= 1) & (square >= 0.4)
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.75
    if shape == "cross":
        return (np.maximum(abs(x), abs(y)) <= 0.95) & (np.minimum(abs(x), abs(y)) <= 0.27)
    if shape == "triangle":
        return (y <= 0.6) & (y >= math.sqrt(3) * abs(x) - 1)
    # A five-pointed star: at each angle from the nearest tip, the edge is the straight line from the tip to the notch.
    half, tip, notch = math.pi / 5, 1.05, 0.42
    angle = np.arctan2(x, -y) % (2 * half)
    angle = np.minimum(angle, 2 * half - angle)
    edge = tip * notch * math.sin(half) / (notch * np.sin(half - angle) + tip * np.sin(angle))
    return np.hypot(x, y) <= edge


def _thing(
    random: np.random.Generator,
    combination: tuple[str, str],
    small: bool,
    centre: Sequence[float],
    radius: float,
) -> Thing:
    return Thing(
        colour=combination[0],
        shape=combination[1],
        size="small" if small else "large",
        centre=(float(centre[0]), float(centre[1])),
        radius=float(radius),
        turn=float(random.uniform(-0.3, 0.3)),
    )


def _ground(random: np.random.Generator) -> tuple[int, int, int]:
    level = random.integers(215, 245) if random.random() < 0.5 else random.integers(15, 60)
    red, green, blue = (int(level + shift) for shift in random.integers(-10, 11, 3))
    return red, green, blue
