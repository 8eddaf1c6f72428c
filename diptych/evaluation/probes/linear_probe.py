"""Linear probe: how well a logistic regression on a frozen model's features tells classes (Radford et al. 2021, 3.2).

Features are those before the projection into the space shared with text. The strength of the regularisation is chosen
on validation images, then all labelled images are fitted with it, and the test images are looked at once.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from diptych.embed.encode import Progress
from diptych.errors import DataError
from diptych.evaluation.probes.logistic_regression import Fit, fitting_device
from diptych.evaluation.probes.probe_data import VALIDATION_SHARE, ProbeData
from diptych.evaluation.probes.strength_sweep import MOST_STRENGTHS, Split, Sweep, sweep
from diptych.evaluation.task_report import Report
from diptych.evaluation.tasks import Metric

MOST_FITS = MOST_STRENGTHS + 1
NOT_CONVERGED = "warning: a fit had not converged; its weights are the best found"

Data = TypeVar("Data", bound=ProbeData)


@dataclass(frozen=True)
class Probe:
    """A classifier of features. fit: of training and validation images. chosen: how it was found how to fit them."""

    fit: Fit
    chosen: Sweep
    fitted: int  # images that `fit` has learned from
    validated: str  # what the strength was chosen with

    def notes(self) -> tuple[str, ...]:
        """Return how the strength was found, as sentences for people."""
        found = (
            f"C = {self.chosen.inverse_strength:.3g}, the best of {len(self.chosen.scores)} that were tried on "
            f"{self.validated}; fitted to {self.fitted:,} images"
        )
        return (found,) if self.fit.converged else (found, NOT_CONVERGED)

    def details(self) -> dict[str, Any]:
        """Return a report's details: `converged` is about the last fit, `unconverged` about those before it."""
        return {
            "C": self.chosen.inverse_strength,
            "fits": len(self.chosen.scores) + 1,
            "converged": self.fit.converged,
            "training_images": self.fitted,
            "validated_with": self.validated,
            **self.chosen.to_json(),
        }


def evaluate_linear_probe(
    train: Data,
    test: Data,
    validation: Data | None = None,
    *,
    model_name: str,
    headline: Metric = "top1",
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Report:
    """Measure a classifier that has learned from labelled images, by the metrics of zero-shot classification.

    train, test, validation: all of one class an image, or all of several, for which `headline` is "map11".
    validation: images to choose the regularisation with, by `headline`; a fifth of the training images, drawn with
    `seed` from each class, when not given. device: where to fit. progress: is told of each fit, of which there are at
    most `MOST_FITS`.

    Intervals and `chance` are those of `evaluate_zero_shot` and `evaluate_multi_label`: they are about the test
    images, not about which images were learned from. `details` has the chosen `C`, everything that was tried, the
    number of fits, and which of them had not converged.

    Raises:
        DataError: a class without a training image, other classes in `test` or `validation` than in `train`, or too
            few images to keep some for validation.
        SettingsError: `headline` is unknown, or does not fit the classes.
    """
    check_test(train, test, headline)
    if validation is not None:
        check_test(train, validation, headline)
    probe = fit_probe(
        train, validation, headline=headline, seed=seed, device=torch.device(device), progress=progress
    )
    scores, outcomes, groups = test.measured(probe.fit, headline)
    return Report(
        task="linear-probe",
        model=model_name,
        data=test.data,
        scores=scores,
        groups=groups,
        skipped=test.skipped,
        remarks=test.remarks_beside(train),
        details={"headline": headline, "classes": len(test.classes), **probe.details()},
        notes=probe.notes(),
        outcomes=outcomes,
    )


def fit_probe(
    train: Data,
    validation: Data | None,
    *,
    headline: str,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
) -> Probe:
    """Choose a strength by the validation images, then fit these and the training images with it.

    The parameters are those of `evaluate_linear_probe`.
    """
    place = fitting_device(device)
    fitted, kept = train.parts(seed) if validation is None else (train, validation)
    chosen = sweep([Split(fitted.regression(place), lambda fit: kept.score(fit, headline))], progress)
    everything = train if validation is None else train.joined(validation)
    fit = everything.regression(place).fit(chosen.inverse_strength, chosen.nearest)
    if progress is not None:
        progress(1)
    drawn = f"{VALIDATION_SHARE:.0%} of the training images, seed {seed}"
    return Probe(fit, chosen, len(everything), drawn if validation is None else validation.data)


def check_test(train: ProbeData, test: ProbeData, headline: str) -> None:
    """Check that a fit of one can be measured on the other by a metric; raises what `evaluate_linear_probe` does."""
    if test.classes != train.classes:
        raise DataError(
            f"{test.data}: its {len(test.classes)} classes are not those of {train.data}, of which there are "
            f"{len(train.classes)}; compute its features with labels=LabelSet.of(train.classes)"
        )
    test.check(headline)
