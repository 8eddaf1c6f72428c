"""Few-shot probes: a linear probe of 1, 2, 4, 8, 16 examples a class (Radford et al. 2021, sections 3.1 and 3.2).

And where they meet zero-shot: how many labelled examples a class a probe needs to do as well as the model does from
the classes' names alone, which the paper calls the data efficiency of zero-shot transfer.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from diptych.embed.encode import Progress
from diptych.errors import DataError, SettingsError
from diptych.evaluation.metrics import Flags, Floats, Integers, Interval
from diptych.evaluation.probes.linear_probe import NOT_CONVERGED, check_test
from diptych.evaluation.probes.logistic_regression import Fit, fitting_device
from diptych.evaluation.probes.probe_data import LabelledFeatures, shuffled
from diptych.evaluation.probes.strength_sweep import Split, sweep
from diptych.evaluation.robustness.student_t import margin
from diptych.evaluation.task_report import Outcomes, Report, Scores
from diptych.evaluation.tasks import SEEDS, SHOTS, Headline
from diptych.wording import percent

MOST_FOLDS = 4

# The best power of ten for one image a class, on parts of the training sets of digits and Fashion-MNIST; all from 1 to
# 10,000 were within 1.3 points.
_ONE_SHOT = 10.0


@dataclass(frozen=True)
class Crossing:
    """How many labelled examples a class make a probe as good as zero-shot: exactly `examples` by interpolation, at
    most that many where the smallest probe is as good, more than that many where the largest is not."""

    examples: float
    relation: Literal["equal", "at most", "more than"]


class _Draw(NamedTuple):
    """What one probe came to. of_images: (n,), what `value` is the mean of, where it is a mean over images."""

    value: float
    chance: float
    of_images: Floats | None
    inverse_strength: float
    converged: bool


def evaluate_few_shot(
    train: LabelledFeatures,
    test: LabelledFeatures,
    *,
    model_name: str,
    shots: Sequence[int] = SHOTS,
    seeds: int = SEEDS,
    headline: Headline = "top1",
    zero_shot: float | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Report:
    """Measure `headline` of probes that have learned from so many training images of each class.

    shots: numbers of images a class. seeds: how often they are drawn; draws of one seed contain each other.
    zero_shot: the model's own `headline` on `test`, for the `crossing` in the details. progress: is told of each
    probe, of which there are `len(shots) * seeds`.

    The regularisation is chosen from the drawn images alone: by cross-validation, in at most `MOST_FOLDS` folds with as
    many images of each class as each other; one image a class cannot be divided, so its C is `one_shot_strength`.

    Metrics are means over the seeds, called `top1_4_shot` and so on. Their intervals are Student's t over the seeds:
    about which images were drawn, not about the test images; one seed has none.

    Raises:
        DataError: a class has fewer training images than `shots` asks for, or other classes in `test`.
        SettingsError: `shots` or `seeds` is not positive, or `headline` does not fit the classes.
    """
    numbers, place = _check(shots, seeds, zero_shot), fitting_device(torch.device(device))
    check_test(train, test, headline)
    _check_enough(train, numbers[-1])
    draws = [
        [
            _draw(train, test, number, seed, headline=headline, device=place, progress=progress)
            for seed in range(seeds)
        ]
        for number in numbers
    ]
    names = [metric_name(headline, number) for number in numbers]
    values = np.array([[draw.value for draw in of_number] for of_number in draws])
    details = {
        "headline": names[-1],
        "classes": len(test.classes),
        "shots": numbers,
        "seeds": seeds,
        **_of_draws(names, draws),
        **_crossings(numbers, values, zero_shot),
    }
    return Report(
        task="few-shot",
        model=model_name,
        data=test.data,
        scores=_scores(len(test), names, values, draws[0][0].chance),
        skipped=test.skipped,
        remarks=test.remarks_beside(train),
        details=details,
        notes=(_crossing_remark(details), *(() if details["converged"] else (NOT_CONVERGED,))),
        outcomes=Outcomes(keys=test.keys, scores=_of_images(names, draws), positions=test.positions),
    )


def _check(shots: Sequence[int], seeds: int, zero_shot: float | None) -> list[int]:
    """Return the numbers of shots, each once, in order; SettingsError where one of the values cannot be used."""
    numbers = sorted(set(shots))
    if not numbers or numbers[0] < 1 or seeds < 1:
        raise SettingsError(f"shots {list(shots)}, seeds {seeds}: expected whole numbers from 1")
    if zero_shot is not None and not 0 <= zero_shot <= 1:
        raise SettingsError(f"zero-shot accuracy {zero_shot:g}: expected a share in 0..1, such as 0.42")
    return numbers


def _of_draws(names: Sequence[str], draws: Sequence[Sequence[_Draw]]) -> dict[str, Any]:
    """Return what a report's details say of each draw."""
    return {
        "by_seed": {
            name: [draw.value for draw in of_number] for name, of_number in zip(names, draws, strict=True)
        },
        "C": {
            name: [draw.inverse_strength for draw in of_number]
            for name, of_number in zip(names, draws, strict=True)
        },
        "converged": all(draw.converged for of_number in draws for draw in of_number),
    }


def _scores(count: int, names: Sequence[str], values: NDArray[np.float64], chance: float) -> Scores:
    """Return the means over the draws. values: (names, seeds)."""
    return Scores(
        count=count,
        metrics=dict(zip(names, values.mean(axis=1).tolist(), strict=True)),
        confidence={
            name: t_interval(of_seeds.tolist())
            for name, of_seeds in zip(names, values, strict=True)
            if len(of_seeds) > 1
        },
        chance=dict.fromkeys(names, chance),
    )


def _of_images(names: Sequence[str], draws: Sequence[Sequence[_Draw]]) -> dict[str, Floats]:
    """Return what each test image scores, (n,), as a mean over the draws, for metrics that are means over images."""
    return {
        name: np.stack(of_images).mean(axis=0)
        for name, of_number in zip(names, draws, strict=True)
        if (of_images := [draw.of_images for draw in of_number if draw.of_images is not None])
    }


def metric_name(headline: str, shots: int) -> str:
    """Return what a report calls a metric of probes of so many examples a class."""
    return f"{headline}_{shots}_shot"


def sample(target: Integers, shots: int, seed: int) -> Integers:
    """Draw the indices of `shots` examples of each class, without replacement, class by class.

    target: (n,) classes. With one seed, those of fewer shots are among those of more, and a class's draw does not
    depend on the other classes.
    """
    return np.concatenate(
        [shuffled(np.flatnonzero(target == label), seed, int(label))[:shots] for label in np.unique(target)]
    )


def one_shot_strength(features: Floats) -> float:
    """Return the C for one example a class, from the features (n, width): C times their mean squared distance
    from their mean is `_ONE_SHOT`, and the fit is the same whatever the scale that a model's features have."""
    wide = features.astype(np.float64)
    spread = float(np.square(wide - wide.mean(axis=0)).sum(axis=1).mean())
    return _ONE_SHOT / spread if spread else 1.0


def crossing(shots: Sequence[float], accuracy: Sequence[float], zero_shot: float) -> Crossing:
    """Return the number of examples a class at which a probe's accuracy first reaches that of zero-shot.

    shots, accuracy: of probes, by rising numbers of examples. Between two of them accuracy is taken to be linear in
    the logarithm of the number (Figure 7).
    """
    if accuracy[0] >= zero_shot:
        return Crossing(float(shots[0]), "at most")
    for few, many, low, high in zip(shots, shots[1:], accuracy, accuracy[1:], strict=False):
        if high >= zero_shot:
            share = (zero_shot - low) / (high - low)
            return Crossing(math.exp(math.log(few) + share * math.log(many / few)), "equal")
    return Crossing(float(shots[-1]), "more than")


def t_interval(values: Sequence[float]) -> Interval:
    """Return Student's interval at 95 % for the mean of shares, two or more, cut to 0..1."""
    mean, reach = fmean(values), margin(values)
    return max(0.0, mean - reach), min(1.0, mean + reach)


def _draw(
    train: LabelledFeatures,
    test: LabelledFeatures,
    shots: int,
    seed: int,
    *,
    headline: Headline,
    device: torch.device,
    progress: Progress | None,
) -> _Draw:
    fit = _fit(train.only(sample(train.target, shots, seed)), shots, headline, device)
    scores, outcomes, _ = test.measured(fit, headline)
    if progress is not None:
        progress(1)
    return _Draw(
        scores.metrics[headline],
        scores.chance[headline],
        outcomes.scores.get(headline),
        fit.inverse_strength,
        fit.converged,
    )


def _fit(drawn: LabelledFeatures, shots: int, headline: str, device: torch.device) -> Fit:
    """Fit the probe of a balanced sample, class by class."""
    everything = drawn.regression(device)
    if shots == 1:
        return everything.fit(one_shot_strength(drawn.features))
    folds = min(shots, MOST_FOLDS)
    # A class's examples stand in a row, so that each fold gets as many of each.
    fold = np.arange(len(drawn)) % shots % folds
    splits = [_split(drawn, fold == number, headline, device) for number in range(folds)]
    chosen = sweep(splits)
    return everything.fit(chosen.inverse_strength, chosen.nearest)


def _split(drawn: LabelledFeatures, kept: Flags, headline: str, device: torch.device) -> Split:
    validation = drawn.only(np.flatnonzero(kept))
    return Split(
        drawn.only(np.flatnonzero(~kept)).regression(device), lambda fit: validation.score(fit, headline)
    )


def _check_enough(train: LabelledFeatures, shots: int) -> None:
    counts = np.bincount(train.target, minlength=len(train.classes))
    fewest = int(counts.argmin())
    if counts[fewest] < shots:
        raise DataError(
            f"{train.data}: the class {train.classes[fewest]!r} has {counts[fewest]} images; {shots} shots need "
            f"{shots} of each class: ask for fewer, or leave the class out"
        )


def _crossings(shots: Sequence[int], values: NDArray[np.float64], zero_shot: float | None) -> dict[str, Any]:
    if zero_shot is None:
        return {}
    return {
        "zero_shot": zero_shot,
        "crossing": asdict(crossing(shots, values.mean(axis=1).tolist(), zero_shot)),
        "crossing_by_seed": [asdict(crossing(shots, column.tolist(), zero_shot)) for column in values.T],
    }


def _crossing_remark(found: dict[str, Any]) -> str:
    """Return the remark beside the figures. found: a report's details."""
    if "crossing" not in found:
        return "intervals: over the draws of the images that were learned from"
    meets, accuracy = found["crossing"], percent(found["zero_shot"])
    relation = "" if meets["relation"] == "equal" else f"{meets['relation']} "
    return f"zero-shot, {accuracy}, is worth {relation}{meets['examples']:.1f} labelled images a class"
