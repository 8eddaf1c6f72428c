"""Draw any number of image and text vectors that lie as OpenAI's ViT-B/32 puts photographs and captions.

`clip_geometry.json` has the parameters, which `fit_geometry.py` fitted to published features of 815 photographs and
500 captions. `docs/results/vector_geometry.md` says what the draws reproduce, and what they do not.

Before it is scaled to unit length, a vector is the sum of its cone's mean and a deviation:

- Directions. One coordinate of every image is about -0.67, and two of every text are about 0.4; those are drawn alone.
  The other 509 coordinates have an orthonormal basis whose first directions lean on few coordinates.
- Images. The deviation has a falling spectrum. It is that of a tree: first 64 kinds, then eight branches at every fork,
  each level with a smaller share of the variance, and a rest of the image's own. Popular branches hold more images.
  A factor for every second-level branch makes the images of some alike and those of others not.
- Texts. A text repeats a part of its image's deviation, direction by direction, and adds one of its own, which lies
  mostly where images vary little.

The seed decides everything. Images come in chunks, each with a seed of its own, so that no collection is ever whole.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych import config

Floats = NDArray[np.float32]
Half = NDArray[np.float16]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

PARAMETERS = Path(__file__).with_suffix(".json")
CHUNK = 16_384  # images drawn at once
BRANCHES = 8
LEVELS = 8
# Branches beyond this number share their deviations. Those that share one differ in the levels above it.
_TABLE = 4096
_WIDE = 2  # levels that the factor of a branch leaves as they are
_SIGNS = 256  # draws of the signs of the texts' mean, of which the one with the right product counts
_SPREAD_DIGITS = (
    0x9E3779B1  # an odd number near 2 ** 32 divided by the golden ratio (Knuth, volume 3, section 6.4)
)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What was fitted. A tuple by band is piecewise constant: band i ends before direction `bands[i + 1]`.

    bands: edges over the directions of the bulk, 0 to its dimension. Variances and squared means are sums over a band.
    """

    dim: int
    bands: tuple[int, ...]
    # Coordinates that stand alone: number, and mean and deviation in images and in texts.
    image_axes: tuple[int, ...]
    text_axes: tuple[int, ...]
    image_axis_mean: float
    image_axis_deviation: float
    image_axis_mean_in_texts: float
    text_axis_mean: float
    text_axis_deviation: float
    text_axis_mean_in_images: float
    # The bulk.
    axis_spread: float  # deviation of the logarithm of a coordinate's scale, for the first directions
    image_variance: tuple[float, ...]
    image_mean: tuple[float, ...]
    text_mean: tuple[float, ...]
    means_product: float  # of both means of the bulk
    repeated: tuple[float, ...]  # the factor with which a text repeats its image's deviation
    text_variance: tuple[float, ...]  # of a text's own deviation
    text_decay: float  # the k-th direction of a text's own deviation has a variance of k ** -text_decay
    text_of_image: float  # the share of it that all texts of one image have in common
    # The tree.
    kinds: int
    kinds_share: float  # of an image's variance
    branch_share: float  # of what the levels above left
    popularity: float  # the r-th branch is as popular as r ** -popularity
    unevenness: float  # deviation of the logarithm of the factor of a branch

    def by_direction(self, values: tuple[float, ...], *, shared: bool) -> Doubles:
        """Return one value a direction; shared: a band's value is divided by its width."""
        widths = np.diff(self.bands)
        each = np.asarray(values, np.float64) / (widths if shared else 1)
        return np.repeat(each, widths)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n", "utf-8")


def load_geometry(path: Path = PARAMETERS) -> Geometry:
    """Read the parameters of a file that `Geometry.save` wrote."""
    return config.build(Geometry, json.loads(path.read_text("utf-8")), str(path))


class Drawn:
    """A collection of images, and queries to it, all a function of the geometry and the seed."""

    def __init__(self, geometry: Geometry | None = None, seed: int = 0) -> None:
        self.geometry, self._seed = geometry or load_geometry(), seed

    def chunks(self, count: int) -> Iterator[Floats]:
        """Yield `count` unit-length images in parts of at most `CHUNK` rows (rows, dim)."""
        for number, start in enumerate(range(0, count, CHUNK)):
            random = self._random(1, number)
            yield self._images(self._deviations(min(CHUNK, count - start), random), random)

    def images(self, count: int) -> Half:
        """Return `count` images in half precision (count, dim), unit length up to rounding."""
        rows = np.empty((count, self.geometry.dim), np.float16)
        for number, part in enumerate(self.chunks(count)):
            rows[number * CHUNK : number * CHUNK + len(part)] = part
        return rows

    def pairs(self, count: int, texts: int = 1) -> tuple[Floats, Floats]:
        """Return images that are not in the collection (count, dim), and their texts (count * texts, dim)."""
        random = self._random(2, 0)
        deviations = self._deviations(count, random)
        images = self._images(deviations, random)
        return images, self._texts(np.repeat(deviations, texts, axis=0), texts, random)

    def _random(self, *which: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *which])

    @cached_property
    def _bulk(self) -> Integers:
        """The coordinates that do not stand alone."""
        return np.setdiff1d(
            np.arange(self.geometry.dim), (*self.geometry.image_axes, *self.geometry.text_axes)
        )

    @cached_property
    def _basis(self) -> Floats:
        """The directions of the bulk, one a row: (bulk, bulk)."""
        random, size = self._random(3), len(self._bulk)
        scales = np.exp(self.geometry.axis_spread * random.normal(size=(size, 1)))
        basis: Floats = np.linalg.qr(scales * random.normal(size=(size, size)))[0].T.astype(np.float32)
        return basis

    @cached_property
    def _means(self) -> tuple[Floats, Floats]:
        """The means of images and texts, in the directions of the bulk."""
        shape, random = self.geometry, self._random(4)
        image, text = (
            np.sqrt(shape.by_direction(energy, shared=True)) for energy in (shape.image_mean, shape.text_mean)
        )
        signs = random.choice((-1, 1), (_SIGNS, len(self._bulk)))
        chosen = np.abs(signs @ (image * text) - shape.means_product).argmin()
        return image.astype(np.float32), (signs[chosen] * text).astype(np.float32)

    @cached_property
    def _tree(self) -> list[Floats]:
        """The deviations of the branches of each level, scaled by the square root of the level's variance."""
        shape, random = self.geometry, self._random(5)
        left, shares = 1 - shape.kinds_share, [shape.kinds_share]
        for _ in range(LEVELS - 1):
            shares.append(left * shape.branch_share)
            left -= shares[-1]
        deviation = np.sqrt(shape.by_direction(shape.image_variance, shared=True)).astype(np.float32)
        sizes = [min(_TABLE, shape.kinds * BRANCHES**level) for level in range(LEVELS)]
        tables = [
            random.standard_normal((size, len(self._bulk)), np.float32) * deviation * np.float32(share**0.5)
            for size, share in zip(sizes, shares, strict=True)
        ]
        return [*tables, deviation[None] * np.float32(left**0.5)]

    @cached_property
    def _factors(self) -> Floats:
        """The factor of each branch of the second level, with a mean square of 1."""
        spread, size = self.geometry.unevenness, len(self._tree[1])
        return np.exp(spread * self._random(6).normal(size=size) - spread**2).astype(np.float32)

    @cached_property
    def _own(self) -> Floats:
        """What makes a text's own deviation of independent numbers: (bulk, bulk)."""
        shape, random, size = self.geometry, self._random(7), len(self._bulk)
        profile = np.sqrt(shape.by_direction(shape.text_variance, shared=True))
        scale = np.arange(1, size + 1) ** (-shape.text_decay / 2)
        mixing = scale[:, None] * random.normal(size=(size, size)) / np.linalg.norm(scale) * profile
        return mixing.astype(np.float32)

    def _deviations(self, count: int, random: np.random.Generator) -> Floats:
        """Draw the deviations of images from their mean, in the directions of the bulk."""
        *tables, rest = self._tree
        rows = rest * random.standard_normal((count, len(self._bulk)), np.float32)
        places, branch = [], np.zeros(count, np.int64)
        for level, table in enumerate(tables):
            branch = self._grown(branch, level, random)
            places.append(branch if len(table) < _TABLE else branch * _SPREAD_DIGITS % 2**32 % _TABLE)
        for table, place in zip(tables[_WIDE:], places[_WIDE:], strict=True):
            rows += table[place]
        rows *= self._factors[places[1]][:, None]
        for table, place in zip(tables[:_WIDE], places, strict=False):
            rows += table[place]
        return rows

    def _grown(self, branch: Integers, level: int, random: np.random.Generator) -> Integers:
        """Choose one of the branches of each branch."""
        number = BRANCHES if level else self.geometry.kinds
        popularity = np.arange(1.0, number + 1) ** -self.geometry.popularity
        chosen = np.searchsorted(np.cumsum(popularity / popularity.sum())[:-1], random.random(len(branch)))
        return branch * number + chosen

    def _images(self, deviations: Floats, random: np.random.Generator) -> Floats:
        shape = self.geometry
        return self._unit(
            self._means[0] + deviations,
            shape.image_axis_mean + shape.image_axis_deviation * random.standard_normal(len(deviations)),
            np.full(len(deviations), shape.text_axis_mean_in_images),
        )

    def _texts(self, deviations: Floats, texts: int, random: np.random.Generator) -> Floats:
        shape, rows = self.geometry, len(deviations)
        common = random.standard_normal((rows // texts, len(self._bulk)), np.float32)
        alone = random.standard_normal((rows, len(self._bulk)), np.float32)
        share = shape.text_of_image
        own = share**0.5 * np.repeat(common, texts, axis=0) + (1 - share) ** 0.5 * alone
        # A far image has no better match than a near one: what a text repeats is divided by the image's variance.
        repeated = shape.by_direction(shape.repeated, shared=False).astype(np.float32)
        repeated = repeated * sum(shape.image_variance) / np.square(deviations).sum(axis=1, keepdims=True)
        return self._unit(
            self._means[1] + repeated * deviations + own.astype(np.float32) @ self._own,
            np.full(rows, shape.image_axis_mean_in_texts),
            shape.text_axis_mean + shape.text_axis_deviation * random.standard_normal(rows),
        )

    def _unit(self, bulk: Floats, image_axis: Doubles, text_axis: Doubles) -> Floats:
        rows = np.empty((len(bulk), self.geometry.dim), np.float32)
        rows[:, self._bulk] = bulk @ self._basis
        rows[:, self.geometry.image_axes] = image_axis[:, None]
        rows[:, self.geometry.text_axes] = text_axis[:, None]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with four significant digits."""

    def short(value: Any) -> Any:
        if isinstance(value, tuple):
            return [short(one) for one in value]
        return float(f"{value:.4g}") if isinstance(value, float) else value

    return {name: short(value) for name, value in values.items()}
