"""Check for images that several rows show."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from diptych.data.sources.opening import Source
from diptych.data.subsets.labelled import label_of
from diptych.data.subsets.same_images import ImageMarks, mark_image, neighbouring_rows, run_length
from diptych.doctor.check import Check
from diptych.doctor.false_negatives import false_negatives
from diptych.errors import DataError
from diptych.training.settings import Recipe

ROWS = 10_000  # rows whose images are compared

Integers = npt.NDArray[np.int64]


def same_image_checks(recipe: Recipe, source: Source, used: Sequence[int]) -> Iterator[Check]:
    """Compare the images of the rows that training uses, or of runs of them; see `neighbouring_rows`."""
    rows = [used[place] for place in neighbouring_rows(len(used), ROWS)]
    labels: list[str | None] = [None] * len(rows)
    keys = [""] * len(rows)
    seen = ImageMarks(len(rows))
    for row, position in enumerate(rows):
        try:
            example = source[position]
            keys[row], labels[row] = example.key, label_of(example, recipe.data.label_from)
            seen.note(row, mark_image(example))
        except (DataError, OSError):
            continue  # it is counted among the unreadable rows
    images = seen.images(source, np.array(rows, np.int64))
    yield _repeated(images, len(used), recipe)
    if _learns_labels(recipe):
        yield from _differing_labels(images, labels, keys)


def chance_to_meet(images: Integers, total: int) -> float:
    """Estimate the probability that two of `total` rows show the same image.

    images: (n,), see `same_images`, of all rows, or of those that `neighbouring_rows` chooses. Rows of one run meet as
    often as the runs show; rows of different runs, as often as all pairs across runs show.
    """
    count = len(images)
    if count < 2:
        return 0.0
    equal = _equal_pairs(images)
    if count == total:
        return equal / (count * (count - 1))
    runs = images.reshape(-1, run_length(ROWS))
    near = sum(_equal_pairs(run) for run in runs)
    far_pairs = count * (count - runs.shape[1])
    far = (equal - near) / far_pairs if far_pairs else 0.0
    return near / count / (total - 1) + far


def _repeated(images: Integers, total: int, recipe: Recipe) -> Check:
    count, distinct = len(images), len(np.unique(images))
    detail = f"{count:,} rows{'' if count == total else ' looked at'} show {distinct:,} images"
    if distinct == count or not recipe.approach.has_negatives:
        return Check("same images", "ok", detail)
    return false_negatives(recipe, "image", detail, chance_to_meet(images, total))


def _differing_labels(images: Integers, labels: Sequence[str | None], keys: Sequence[str]) -> Iterator[Check]:
    first: dict[int, str] = {}
    differing: dict[int, tuple[str, str]] = {}
    for image, label in zip(images.tolist(), labels, strict=True):
        if label is not None and first.setdefault(image, label) != label:
            differing.setdefault(image, (first[image], label))
    if not differing:
        return
    image, (one, other) = next(iter(differing.items()))
    count = "1 image has" if len(differing) == 1 else f"{len(differing):,} images have"
    yield Check(
        "labels of an image",
        "warn",
        f"{count} different labels in different rows, such as {keys[image]!r}: {one!r} and {other!r}; correct them",
    )


def _learns_labels(recipe: Recipe) -> bool:
    finetune = recipe.finetune
    if finetune is not None:
        return not finetune.several and finetune.method not in ("contrastive", "lit", "lora")
    return recipe.model.resolve().label_head is not None


def _equal_pairs(images: Integers) -> int:
    """Return the number of ordered pairs of different rows with the same image."""
    return sum(count * (count - 1) for count in Counter(images.tolist()).values())
