"""How strongly to regularise a probe: the paper's sweep, by halving intervals instead of trying everything.

Radford et al. (2021), appendix A.3: the strength that does best on validation data, of values from 1e-6 to 1e6 in
logarithmic steps; first coarsely, then with the interval around the peak halved until there are 8 steps a decade.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from diptych.embed.encode import Progress
from diptych.evaluation.probes.logistic_regression import Fit, LogisticRegression

STEPS_PER_DECADE = 8
DECADES = 12
# 96 steps, so 97 values, of scikit-learn's C, from the strongest to the weakest regularisation.
INVERSE_STRENGTHS = tuple(
    10.0 ** (-6 + step / STEPS_PER_DECADE) for step in range(DECADES * STEPS_PER_DECADE + 1)
)
COARSE_STEP = 2 * STEPS_PER_DECADE  # 1e-6, 1e-4, ..., 1e6
MOST_STRENGTHS = 7 + 2 * 4  # coarse ones, and two in each of the halvings 16 -> 8 -> 4 -> 2 -> 1

# Ten times looser than for the last fit: the sweep compares counts of right answers. And no more products with the
# Hessian than this, which strengths far beyond the peak alone need.
SWEEP_TOLERANCE = 1e-2
SWEEP_PRODUCTS = 300


class Score(NamedTuple):
    """How good a strength is; the larger, the better.

    A metric of few validation images has many ties. Of strengths with an equal metric the one with the smaller mean
    loss of the validation images is better; of those with equal losses, as of exactly equal fits, the stronger one.
    """

    metric: float
    negative_loss: float


class Split(NamedTuple):
    """Examples to fit, and how well a fit does on those that were kept from it."""

    train: LogisticRegression
    validate: Callable[[Fit], Score]


@dataclass(frozen=True)
class Sweep:
    """scores: of each C that was tried, in the order of trial. unconverged: those whose fit had not converged."""

    inverse_strength: float
    scores: dict[float, Score]
    nearest: Fit  # the fit of the chosen C on the first split: where a fit on all examples may start
    unconverged: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what was tried, by rising C."""
        return {
            "tried": [
                {"C": strength, "metric": score.metric, "loss": -score.negative_loss}
                for strength, score in sorted(self.scores.items())
            ],
            "unconverged": sorted(self.unconverged),
        }


def sweep(splits: Sequence[Split], progress: Progress | None = None) -> Sweep:
    """Find the best of `INVERSE_STRENGTHS` by the mean score over the splits, as in a cross-validation of several.

    Each fit starts from that of the nearest C before it. progress: is told of every C that is done, of which there
    are at most `MOST_STRENGTHS`.
    """
    fits: dict[int, list[Fit]] = {}

    def score(place: int) -> Score:
        strength = INVERSE_STRENGTHS[place]
        near = fits[min(fits, key=lambda known: abs(known - place))] if fits else [None] * len(splits)
        fits[place] = [
            split.train.fit(strength, start, tolerance=SWEEP_TOLERANCE, max_products=SWEEP_PRODUCTS)
            for split, start in zip(splits, near, strict=True)
        ]
        scores = [split.validate(fit) for split, fit in zip(splits, fits[place], strict=True)]
        if progress is not None:
            progress(1)
        return Score(*(sum(column) / len(scores) for column in zip(*scores, strict=True)))

    scores = halving_search(score)
    best = best_place(scores)
    return Sweep(
        INVERSE_STRENGTHS[best],
        {INVERSE_STRENGTHS[place]: found for place, found in scores.items()},
        fits[best][0],
        tuple(
            INVERSE_STRENGTHS[place]
            for place, of_splits in fits.items()
            if not all(fit.converged for fit in of_splits)
        ),
    )


def halving_search(score: Callable[[int], Score]) -> dict[int, Score]:
    """Score every `COARSE_STEP`-th of `INVERSE_STRENGTHS` by its index, then ever nearer neighbours of the best.

    Finds the best of all places where scores rise to one peak and fall from it.
    """
    last = len(INVERSE_STRENGTHS) - 1
    scores = {place: score(place) for place in range(0, last + 1, COARSE_STEP)}
    step = COARSE_STEP // 2
    while step:
        best = best_place(scores)
        for place in (best - step, best + step):
            if 0 <= place <= last and place not in scores:
                scores[place] = score(place)
        step //= 2
    return scores


def best_place(scores: dict[int, Score]) -> int:
    """Return the index of the best score; the lowest, which regularises most, of equal ones."""
    return max(scores, key=lambda place: (scores[place], -place))
