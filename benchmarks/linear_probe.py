"""Logistic regressions of a linear probe beside scikit-learn's, on scikit-learn's digits and on Fashion-MNIST's pixels.

    python benchmarks/linear_probe.py [--threads 1] [--repetitions 3] [--root DIR] [--quick]

A fit: Diptych's and scikit-learn's two solvers of the same objective take turns, for several C, each from weights of 0
and until it says that it is done: Diptych with its own tolerance, scikit-learn's L-BFGS with its default one and the
paper's 1,000 iterations, and its Newton-Cholesky as sharp as its tests have it. Ratios are within a repetition, medians
with the lowest and the highest. `off` is how far the coefficients are from those of Diptych's fit at a tolerance of
1e-5, the largest difference as a part of the largest coefficient, without what all classes have in common.

A sweep: Diptych's, up to 15 fits and a last one, beside scikit-learn's L-BFGS for the same C one after the other. It
starts each from the coefficients before it, as Diptych does. --quick only sees that it runs.
"""

import argparse
import statistics
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as ReferenceRegression
from timing import alternate, describe_machine, ratio_with_spread

from diptych.data.images.decoding import open_image
from diptych.evaluation.datasets.benchmark import default_root, open_benchmark
from diptych.evaluation.metrics import Floats
from diptych.evaluation.probes.linear_probe import fit_probe
from diptych.evaluation.probes.log_losses import OneOf
from diptych.evaluation.probes.logistic_regression import MAX_ITERATIONS, LogisticRegression
from diptych.evaluation.probes.probe_data import LabelledFeatures

STRENGTHS = (1e-4, 1e-1, 1e2, 1e6)  # of the sweep's range
PIXELS = 500  # of the 60,000 training pictures of Fashion-MNIST
PEER = "scikit-learn L-BFGS"
EXACT = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="processor cores to use; PyTorch's choice when not given")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--root", type=Path, help="where the datasets are; DIPTYCH_DATA or data/ without it")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    sets = [digits(200)] if arguments.quick else [digits(), pixels(arguments.root or default_root())]
    repetitions = 1 if arguments.quick else arguments.repetitions
    # Stopping at its limit of iterations is a result here, which `off` shows.
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(f"medians of {repetitions} alternating repetitions\n{describe_machine('torch', 'scikit-learn')}\n")
    print(f"| examples | C | fit | seconds | x {PEER} | off |\n|---|---|---|---|---|---|")
    for data in sets:
        for strength in STRENGTHS[:2] if arguments.quick else STRENGTHS:
            print("\n".join(compare_fits(data, strength, repetitions)), flush=True)
    print(f"\n| examples | sweep | fits | seconds | x {PEER} |\n|---|---|---|---|---|")
    for data in sets:
        print("\n".join(compare_sweeps(data, repetitions)), flush=True)


def digits(count: int = 1437) -> LabelledFeatures:
    """Pixels 0..16 of the first digits, 64 each; four fifths without a count."""
    found = load_digits()
    return labelled("digits", found.data[:count], found.target[:count])


def pixels(root: Path) -> LabelledFeatures:
    """Pixels 0..1 of the first pictures of Fashion-MNIST, 784 each."""
    source = open_benchmark("fashion_mnist", root, "train").source
    examples = [source[row] for row in range(PIXELS)]
    names = sorted({str(example.label) for example in examples})
    values = np.stack(
        [np.asarray(open_image(example.image).convert("L"), np.float32).ravel() / 255 for example in examples]
    )
    return labelled("Fashion-MNIST", values, np.array([names.index(str(one.label)) for one in examples]))


def labelled(name: str, features: np.ndarray, target: np.ndarray) -> LabelledFeatures:
    """Features (n, width) of n images and their classes (n,)."""
    rows = range(len(target))
    return LabelledFeatures(
        data=f"{name} {len(target)} x {features.shape[1]}",
        classes=tuple(str(label) for label in range(10)),
        features=features.astype(np.float32),
        target=target.astype(np.int64),
        keys=tuple(map(str, rows)),
        positions=tuple(rows),
        skipped={},
    )


def compare_fits(data: LabelledFeatures, strength: float, repetitions: int) -> list[str]:
    """Rows of the first table."""
    features, likelihood = torch.from_numpy(data.features), OneOf(torch.from_numpy(data.target), 10)
    wide = data.features.astype(np.float64)
    found: dict[str, Floats] = {}

    def diptych() -> None:
        found["Diptych"] = LogisticRegression(features, likelihood).fit(strength).weights.cpu().numpy()

    def reference(name: str, solver: str, tolerance: float) -> None:
        model = ReferenceRegression(C=strength, solver=solver, tol=tolerance, max_iter=MAX_ITERATIONS)
        found[name] = model.fit(wide, data.target).coef_

    cases: dict[str, Callable[[], object]] = {
        "Diptych": diptych,
        PEER: partial(reference, PEER, "lbfgs", 1e-4),
    }
    if (
        wide.shape[1] < 100
    ):  # it solves equations of all coefficients at once: 7,840 of the larger set take minutes
        newton = "scikit-learn Newton-Cholesky"
        cases[newton] = partial(reference, newton, "newton-cholesky", min(1e-10, 1e-6 / strength))
    seconds = alternate(cases, repetitions)
    exact = (
        LogisticRegression(features, likelihood).fit(strength, tolerance=EXACT, max_products=10**5).weights
    )
    rows = []
    for name, times in seconds.items():
        ratio = ratio_with_spread(seconds[PEER], times)
        off = difference(found[name], exact.cpu().numpy())
        rows.append(
            f"| {data.data} | {strength:.0e} | {name} | {statistics.median(times):.3g} | {ratio} | {off:.0e} |"
        )
    return rows


def difference(found: Floats, exact: Floats) -> float:
    """The largest difference of coefficients (classes, width), as a part of the largest of them."""
    one, other = (values - values.mean(axis=0) for values in (found, exact))
    return float(np.abs(one - other).max() / np.abs(other).max())


def compare_sweeps(data: LabelledFeatures, repetitions: int) -> list[str]:
    """Rows of the second table."""
    probe = partial(fit_probe, data, None, headline="top1", seed=0, device=torch.device("cpu"))
    chosen = probe().chosen  # warms up as well
    fitted, _ = data.parts(0)

    def reference() -> None:
        model = ReferenceRegression(solver="lbfgs", max_iter=MAX_ITERATIONS, warm_start=True)
        for strength in chosen.scores:
            model.set_params(C=strength).fit(fitted.features.astype(np.float64), fitted.target)
        model.set_params(C=chosen.inverse_strength).fit(data.features.astype(np.float64), data.target)

    seconds = alternate({"Diptych": probe, PEER: reference}, repetitions, warm_up=False)
    return [
        sweep_row(data.data, name, len(chosen.scores) + 1, times, seconds[PEER])
        for name, times in seconds.items()
    ]


def sweep_row(data: str, name: str, fits: int, times: Sequence[float], peer: Sequence[float]) -> str:
    return f"| {data} | {name} | {fits} | {statistics.median(times):.3g} | {ratio_with_spread(peer, times)} |"


if __name__ == "__main__":
    main()
