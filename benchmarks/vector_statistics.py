"""Measure the geometry of image and text vectors: what makes a search among them easy or hard.

Figures depend on how many vectors there are. Compare collections of equal size only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diptych.evaluation.metrics import first_relevant, share_within

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

NEIGHBOURS = 20  # for the local intrinsic dimension
LISTED = 10  # results of a search, for hubness
COLLECTIONS = (50, 100, 200, 400)  # sizes for which the nearest neighbour is looked for
_CLOSEST = 1e-7  # squared distance; equal vectors would give the logarithm of 0


@dataclass(frozen=True)
class Vectors:
    """Unit-length vectors: images (n, dim), texts (m, dim), and the row of the image that each text describes (m,).

    owner is empty where that is not known.
    """

    images: Floats
    texts: Floats
    owner: Integers


def describe(vectors: Vectors) -> dict[str, float]:
    """Return every figure by its name, in the order of the table."""
    images, texts = vectors.images, vectors.texts
    among, across = images @ images.T, texts @ images.T
    return {
        **_cosines("image and image", _pairs(among)),
        **_cosines("text and text", _pairs(texts @ texts.T)),
        **_cosines("text and image", across.ravel()),
        "text and image: deviation within a text": float(across.std(axis=1).mean()),
        **_matched(across, vectors),
        **_means(images, texts),
        **_spectrum("images", images),
        **_spectrum("texts", texts),
        "texts: variance in the images' first 50 directions": _shared_variance(images, texts, 50),
        **neighbours(among),
        **_searches("images", _without_self(among)),
        **_searches("texts", across),
        "images: largest mean of a coordinate": float(np.abs(images.mean(axis=0)).max()),
        "images: range of coordinates in median deviations": float(
            np.ptp(images) / np.median(images.std(axis=0))
        ),
        "texts: largest mean of a coordinate": float(np.abs(texts.mean(axis=0)).max()),
    }


def neighbours(among: Floats) -> dict[str, float]:
    """Return the cosine of an image with its nearest one: medians in random parts of several sizes, and quantiles.

    among: (n, n), cosines of all images.
    """
    random, found = np.random.default_rng(0), {}
    nearest = _without_self(among).max(axis=1)
    for size in (count for count in COLLECTIONS if count < len(among)):
        parts = [random.permutation(len(among))[:size] for _ in range(4)]
        medians = [np.median(_without_self(among[np.ix_(part, part)]).max(axis=1)) for part in parts]
        found[f"nearest image among {size}"] = float(np.mean(medians))
    found["nearest image among all"] = float(np.median(nearest))
    for share in (0.05, 0.95):
        found[f"nearest image among all, quantile {share:g}"] = float(np.quantile(nearest, share))
    return found


def spectrum(vectors: Floats) -> NDArray[np.float64]:
    """Return the variance along each principal direction, largest first."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    variance: NDArray[np.float64] = np.square(np.linalg.svd(centred, compute_uv=False)) / len(vectors)
    return variance


def local_dimension(cosines: Floats) -> float:
    """Return the median over queries of the intrinsic dimension, from the distances to the 20 nearest.

    cosines: (queries, images). The estimator is that of Levina and Bickel 2004, "Maximum likelihood estimation of
    intrinsic dimension", equation 8, with the mean over the k - 1 ratios.
    """
    nearest = -np.sort(-cosines, axis=1)[:, :NEIGHBOURS].astype(np.float64)
    distance = np.sqrt(np.maximum(2 - 2 * nearest, _CLOSEST))
    return float(np.median(-1 / np.log(distance[:, :-1] / distance[:, -1:]).mean(axis=1)))


def hubness(cosines: Floats) -> float:
    """Return the skewness of the number of queries that list an image among their 10 best.

    Radovanovic et al. 2010, "Hubs in space", equation 1. cosines: (queries, images).
    """
    listed = np.argpartition(-cosines, LISTED, axis=1)[:, :LISTED]
    times = np.bincount(listed.ravel(), minlength=cosines.shape[1]).astype(np.float64)
    return float(np.mean(((times - times.mean()) / times.std()) ** 3))


def _searches(name: str, cosines: Floats) -> dict[str, float]:
    """Return how queries of one kind see the images; -1 marks the query itself."""
    distance = np.sqrt(np.maximum(2 - 2 * cosines.astype(np.float64), _CLOSEST))
    others = np.where(cosines > -1, distance, np.nan)
    return {
        f"queries are {name}: local intrinsic dimension": local_dimension(cosines),
        # Mean distance over the nearest distance: He et al. 2012, "On the difficulty of nearest neighbor search".
        f"queries are {name}: relative contrast": float(
            np.nanmean(others) / np.nanmin(others, axis=1).mean()
        ),
        f"queries are {name}: hubness": hubness(cosines),
    }


def _cosines(name: str, values: Floats) -> dict[str, float]:
    low, high = np.quantile(values, (0.01, 0.99))
    return {
        f"{name}: mean cosine": float(values.mean()),
        f"{name}: deviation": float(values.std()),
        f"{name}: quantile 0.01": float(low),
        f"{name}: quantile 0.99": float(high),
    }


def _matched(across: Floats, vectors: Vectors) -> dict[str, float]:
    owner = vectors.owner
    if not len(owner):
        return {}
    values = across[np.arange(len(owner)), owner]
    same = [_pairs((part := vectors.texts[owner == one]) @ part.T) for one in np.unique(owner)]
    ranks, _ = first_relevant(vectors.texts, vectors.images, [[int(row)] for row in owner])
    recalls = {f"text to image: R@{k}": share_within(ranks, k) for k in (1, 5, 10)}
    between = np.concatenate(same)
    return {
        "text and its image: mean cosine": float(values.mean()),
        "text and its image: deviation": float(values.std()),
        **({"two texts of an image: mean cosine": float(between.mean())} if len(between) else {}),
        **recalls,
    }


def _means(images: Floats, texts: Floats) -> dict[str, float]:
    first, second = images.mean(axis=0), texts.mean(axis=0)
    lengths = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    return {
        "length of the images' mean": lengths[0],
        "length of the texts' mean": lengths[1],
        "modality gap: distance of the means": float(np.linalg.norm(first - second)),
        "modality gap: cosine of the means": float(first @ second) / lengths[0] / lengths[1],
    }


def _spectrum(name: str, vectors: Floats) -> dict[str, float]:
    variance = spectrum(vectors)
    share = variance / variance.sum()
    return {
        f"{name}: variance": float(variance.sum()),
        f"{name}: effective dimension": float(1 / np.square(share).sum()),
        **{f"{name}: variance in {k} directions": float(share[:k].sum()) for k in (5, 20, 100)},
    }


def _shared_variance(images: Floats, texts: Floats, count: int) -> float:
    directions = np.linalg.svd(images - images.mean(axis=0), full_matrices=False)[2][:count]
    centred = texts - texts.mean(axis=0)
    return float(np.square(centred @ directions.T).sum() / np.square(centred).sum())


def _pairs(cosines: Floats) -> Floats:
    values: Floats = cosines[np.triu_indices(len(cosines), 1)]
    return values


def _without_self(among: Floats) -> Floats:
    others = among.copy()
    np.fill_diagonal(others, -1)
    return others
