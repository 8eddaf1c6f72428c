"""Fit the generator of `clip_geometry.py` to features of photographs and captions, and compare both.

    python benchmarks/fit_geometry.py --features openai-vit-b-32-features.npz
        [--trials 160] [--out benchmarks/clip_geometry.json]

Without --out the committed parameters are compared as they are. The table has every figure of `vector_statistics.py`
for the features; for draws of the same size, with the deviation over five seeds; and for the drawings' generator of
`clip_like.py`, from which the vectors of the search benchmarks came before.

Means and variances are read off the features, in bands of the images' principal directions. What cannot be read off is
searched for: the tree's parameters, so that draws have the nearest neighbours of the features at every size, their
intrinsic dimension and their hubs; and the variances, because a sample of a few hundred exaggerates the first ones.

--quick fits draws of the committed parameters, with few trials, and shows that it runs.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from clip_geometry import Doubles, Drawn, Floats, Geometry, load_geometry
from clip_like import Collection, real_embeddings
from vector_statistics import Vectors, describe, hubness, local_dimension, neighbours, spectrum

TEXTS = 5  # captions of an image
STANDS_ALONE = 0.3  # a coordinate whose mean is larger than this
EDGES = (0, 1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320)
SEEDS = 4  # of the draws that are compared with the features, for every trial
# Where the search begins, and how far a step goes.
START = {"kinds_share": 0.4, "branch_share": 0.18, "unevenness": 0.35}
STEP = {"kinds_share": 0.04, "branch_share": 0.03, "unevenness": 0.08}
# How near a draw should come: about two of its own standard deviations. Other figures count 0.01.
TOLERANCE = {"intrinsic dimension": 1.0, "hubness": 0.5, "deviation of cosines": 0.005}


def read_features(path: Path) -> Vectors:
    """Read the features of distinct images, with the captions of the last of them.

    An image whose cosine with an earlier one is above 0.9999 counts as the same.
    """
    with np.load(path) as found:
        images, captioned = found["image_features"], found["flickr_image_features"]
        texts = found["flickr_text_features"]
    same = np.triu(images @ images.T > 0.9999, 1).any(axis=0)
    rows = np.sort(np.unique(captioned, axis=0, return_index=True)[1])
    gallery = np.concatenate([images[~same], captioned[rows]])
    owner = (captioned @ captioned[rows].T).argmax(axis=1) + int((~same).sum())
    return Vectors(gallery, texts, owner)


def drawn_vectors(geometry: Geometry, like: Vectors, seed: int) -> Vectors:
    """Draw as many images as `like` has, and texts for the last of them."""
    drawn, described = Drawn(geometry, seed), len(np.unique(like.owner))
    alone = drawn.images(len(like.images) - described).astype(np.float32)
    images, texts = drawn.pairs(described, TEXTS)
    owner = np.repeat(np.arange(described), TEXTS) + len(alone)
    return Vectors(np.concatenate([alone, images]), texts, owner)


def fit(real: Vectors, trials: int) -> Geometry:
    """Return the parameters whose draws resemble `real` most."""
    shape = _read_off(real)
    target = _image_figures(real.images)
    random, best = np.random.default_rng(0), np.inf
    for trial in range(trials):
        if trial % max(1, trials // 4) == 0:
            shape, best = _with_spectrum(shape, real), np.inf  # other variances, other figures
        tried = shape if best == np.inf else _step(shape, random)
        found = _distance(tried, real, target)
        if found < best:
            shape, best = tried, found
            print(
                f"trial {trial}: {found:.2f} { ({name: round(getattr(shape, name), 3) for name in START}) }"
            )
    return _with_texts(_with_spectrum(shape, real), real)


def _read_off(real: Vectors) -> Geometry:
    """Return what means and covariances say, with the start of the search."""
    images, texts, owner = real.images.astype(np.float64), real.texts.astype(np.float64), real.owner
    means = images.mean(axis=0), texts.mean(axis=0)
    image_axes, text_axes = (np.flatnonzero(np.abs(mean) > STANDS_ALONE) for mean in means)
    bulk = np.setdiff1d(np.arange(images.shape[1]), (*image_axes, *text_axes))
    bands = (*(edge for edge in EDGES if edge < len(bulk)), len(bulk))

    def banded(values: Doubles) -> Doubles:
        return np.add.reduceat(values, bands[:-1])

    directions = np.linalg.svd((images - means[0])[:, bulk], full_matrices=False)[2]
    deviation = (images - means[0])[:, bulk] @ directions.T
    described = deviation[owner] - deviation[np.unique(owner)].mean(axis=0)
    said = (texts - means[1])[:, bulk] @ directions.T
    matched, variance, of_texts = (
        banded(np.mean(product, axis=0)) for product in (described * said, described**2, said**2)
    )
    repeated = np.clip(matched / variance, 0, None)
    own = np.maximum(of_texts - repeated**2 * variance, of_texts / 10)
    sign = np.sign(means[1][text_axes])
    return Geometry(
        dim=images.shape[1],
        bands=bands,
        image_axes=tuple(image_axes.tolist()),
        text_axes=tuple(text_axes.tolist()),
        image_axis_mean=float(means[0][image_axes].mean()),
        image_axis_deviation=float(images[:, image_axes].std(axis=0).mean()),
        image_axis_mean_in_texts=float(means[1][image_axes].mean()),
        text_axis_mean=float((sign * means[1][text_axes]).mean()),
        text_axis_deviation=float(texts[:, text_axes].std(axis=0).mean()),
        text_axis_mean_in_images=float((sign * means[0][text_axes]).mean()),
        axis_spread=0.9,
        image_variance=tuple(banded(np.square(deviation).mean(axis=0)).tolist()),
        image_mean=tuple(banded((directions @ means[0][bulk]) ** 2).tolist()),
        text_mean=tuple(banded((directions @ means[1][bulk]) ** 2).tolist()),
        means_product=float(means[0][bulk] @ means[1][bulk]),
        repeated=tuple(repeated.tolist()),
        text_variance=tuple(own.tolist()),
        text_decay=1.0,
        text_of_image=0.5,
        kinds=64,
        popularity=0.5,
        **START,
    )


def _step(shape: Geometry, random: np.random.Generator) -> Geometry:
    names = random.choice(list(STEP), 2, replace=False)
    moved = {str(name): abs(getattr(shape, name) + STEP[name] * random.normal()) for name in names}
    return replace(shape, **{name: min(value, 0.9) for name, value in moved.items()})


def _image_figures(images: Floats) -> dict[str, float]:
    """Return what the tree decides."""
    among = images @ images.T
    found = neighbours(among)
    pairs = among[np.triu_indices(len(among), 1)]
    found["deviation of cosines"] = float(pairs.std())
    others = among - 2 * np.eye(len(among), dtype=np.float32)
    found |= {"intrinsic dimension": local_dimension(others), "hubness": hubness(others)}
    return found


def _distance(shape: Geometry, real: Vectors, target: Mapping[str, float]) -> float:
    """Return the sum of squares of how far the draws' figures are from the target's, each by its tolerance."""
    drawn = [_image_figures(_drawn_images(shape, len(real.images), seed)) for seed in range(SEEDS)]
    misses = [
        (np.mean([one[name] for one in drawn]) - value) / TOLERANCE.get(name, 0.01)
        for name, value in target.items()
    ]
    return float(np.square(misses).sum())


def _drawn_images(shape: Geometry, count: int, seed: int) -> Floats:
    return np.concatenate(list(Drawn(shape, seed).chunks(count)))


def _with_spectrum(shape: Geometry, real: Vectors) -> Geometry:
    """Return the geometry whose draws have the features' variance in each band, in samples of their size."""

    def banded(images: Floats) -> Doubles:
        bulk = np.delete(images, [*shape.image_axes, *shape.text_axes], axis=1)
        return np.add.reduceat(spectrum(bulk), shape.bands[:-1])

    wanted = banded(real.images)
    for _ in range(4):
        found = np.mean([banded(_drawn_images(shape, len(real.images), seed)) for seed in range(SEEDS)], 0)
        variance = np.asarray(shape.image_variance) * (wanted / found) ** 0.7
        shape = replace(shape, image_variance=tuple(variance.tolist()))
    return shape


def _with_texts(shape: Geometry, real: Vectors) -> Geometry:
    """Return the geometry whose texts have the features' matched cosine, spread and effective dimension."""
    wanted = describe(real)
    lift, spread, effective = _text_figures(wanted)
    between = wanted["two texts of an image: mean cosine"] - wanted["text and text: mean cosine"]
    for _ in range(6):
        drawn = [describe(drawn_vectors(shape, real, seed)) for seed in range(SEEDS)]
        found = {name: float(np.mean([one[name] for one in drawn])) for name in wanted}
        ratio = np.array([lift, spread, effective]) / _text_figures(found)
        common = found["two texts of an image: mean cosine"] - found["text and text: mean cosine"]
        shape = replace(
            shape,
            repeated=tuple((np.asarray(shape.repeated) * ratio[0]).tolist()),
            text_variance=tuple((np.asarray(shape.text_variance) * ratio[1]).tolist()),
            text_decay=shape.text_decay * float(ratio[2]) ** -0.3,
            text_of_image=float(np.clip(shape.text_of_image + (between - common) / spread, 0, 0.99)),
        )
    return shape


def _text_figures(found: Mapping[str, float]) -> tuple[float, float, float]:
    lift = found["text and its image: mean cosine"] - found["text and image: mean cosine"]
    return lift, found["texts: variance"], found["texts: effective dimension"]


def drawings(like: Vectors) -> Vectors:
    """Return vectors of the drawings' generator, as many as `like` has."""
    made = Collection(len(like.images), like.images.shape[1], 0, real_embeddings("sample:train"))
    return Vectors(
        made.images().astype(np.float32), made.text_questions(len(like.texts)), np.empty(0, np.int64)
    )


def table(real: Vectors, shape: Geometry, seeds: int) -> list[str]:
    """Return the lines of a Markdown table: features, draws with their deviation, and the drawings' generator."""
    wanted, before = describe(real), describe(drawings(real))
    drawn = [describe(drawn_vectors(shape, real, seed)) for seed in range(100, 100 + seeds)]
    lines = ["| figure | features | drawn | before |", "|---|---|---|---|"]
    for name, value in wanted.items():
        values = [one[name] for one in drawn]
        spread = f" ± {np.std(values):.3f}" if seeds > 1 else ""
        old = f"{before[name]:.3f}" if name in before else ""
        lines.append(f"| {name} | {value:.3f} | {np.mean(values):.3f}{spread} | {old} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=Path, help="an npz file with the arrays that read_features names")
    parser.add_argument("--trials", type=int, default=160)
    parser.add_argument("--out", type=Path, help="where the fitted parameters are written")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    shape = load_geometry()
    if options.quick:
        images, texts = Drawn(shape).pairs(20, TEXTS)
        real = Vectors(images.repeat(4, axis=0), texts, np.arange(20))
        real = drawn_vectors(shape, real, 0)
        shape = fit(real, 2)
    elif options.features is None:
        parser.error("give --features FILE, or --quick")
    else:
        real = read_features(options.features)
        if options.out is not None:
            shape = fit(real, options.trials)
            shape.save(options.out)
    print(f"{len(real.images)} images, {len(real.texts)} texts.\n")
    print("\n".join(table(real, shape, 1 if options.quick else 5)))


if __name__ == "__main__":
    main()
