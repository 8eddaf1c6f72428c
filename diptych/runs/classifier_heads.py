"""Where a classifier begins: at what the words of its classes say, or at a logistic regression."""

import numpy as np
import torch
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source
from diptych.data.subsets.labelled import LabelFrom, classes_of, label_of
from diptych.errors import DataError
from diptych.evaluation.metrics import Integers
from diptych.evaluation.probes.few_shot import one_shot_strength
from diptych.evaluation.probes.linear_probe import fit_probe
from diptych.evaluation.probes.log_losses import AnyOf
from diptych.evaluation.probes.logistic_regression import Fit, LogisticRegression
from diptych.evaluation.probes.probe_data import LabelledFeatures
from diptych.evaluation.survey import EmbeddedRows, feature_rows
from diptych.evaluation.zero_shot.classification import classifier, logit_scale
from diptych.models.image_model import ImageModel

Head = tuple[Tensor, Tensor]  # weight (classes, width) and bias (classes,), float32


def zero_shot_head(
    model: ImageModel, classes: tuple[str, ...], words: dict[str, tuple[str, ...]], templates: tuple[str, ...]
) -> Head:
    """Return exp(t) times each class's direction among texts, so that the scale is baked in, and no bias.

    The logits of a unit-length embedding are those of zero-shot classification (Wortsman et al. 2022, section 3).
    """
    weights = classifier(model, [words.get(name, (_spoken(name),)) for name in classes], templates)
    return logit_scale(model) * weights.T.contiguous(), torch.zeros(len(classes))


def probe_head(
    model: ImageModel,
    preprocess: Preprocess,
    source: Source,
    positions: list[int],
    classes: tuple[str, ...],
    *,
    label_from: LabelFrom,
    several: bool,
    seed: int = 0,
    groups: Integers | None = None,
) -> Head:
    """Fit a logistic regression on the features, before the projection, of the examples at `positions`.

    groups: (rows of the source,), equal for images that stay together where a part is kept to choose the strength with.
    """
    rows = feature_rows(model, preprocess, source, positions, batch_size=64, progress=None)
    fit = (
        _several(source, rows, classes)
        if several
        else _one_each(source, rows, classes, label_from=label_from, seed=seed, groups=groups)
    )
    return fit.weights.float(), fit.intercept.float()


def _one_each(
    source: Source,
    rows: EmbeddedRows,
    classes: tuple[str, ...],
    *,
    label_from: LabelFrom,
    seed: int,
    groups: Integers | None,
) -> Fit:
    number = {name: place for place, name in enumerate(classes)}
    examples = [source[position] for position in rows.positions]
    target: Integers = np.array(
        [number[str(label_of(example, label_from))] for example in examples], np.int64
    )
    data = LabelledFeatures(
        data=source.name,
        classes=classes,
        features=rows.vectors,
        target=target,
        keys=tuple(example.key for example in examples),
        positions=tuple(rows.positions),
        skipped={},
        groups=() if groups is None else tuple(groups[rows.positions].tolist()),
    )
    if np.bincount(target, minlength=len(classes)).min() > 1 and data.kept_out(seed).any():
        return fit_probe(data, None, headline="top1", seed=seed, device=torch.device("cpu")).fit
    # No image of some class can be spared to choose the strength with.
    return data.regression(torch.device("cpu")).fit(one_shot_strength(rows.vectors))


def _several(source: Source, rows: EmbeddedRows, classes: tuple[str, ...]) -> Fit:
    present = torch.zeros(len(rows.positions), len(classes), dtype=torch.bool)
    for row, position in enumerate(rows.positions):
        for name in classes_of(source[position]):
            present[row, classes.index(name)] = True
    always = [name for name, flags in zip(classes, present.T, strict=True) if flags.all() or not flags.any()]
    if always:
        raise DataError(
            f"{source.name}: the class {always[0]!r} is on every image, or on none, of those that are trained on; "
            'take it out, or set [finetune] head = "zero"'
        )
    known = AnyOf(present, torch.ones_like(present))
    return LogisticRegression(torch.from_numpy(rows.vectors), known).fit(one_shot_strength(rows.vectors))


def _spoken(name: str) -> str:
    """Return a class name with spaces for the underscores that folders have."""
    return name.replace("_", " ")
