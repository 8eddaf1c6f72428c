"""Logistic regression with scikit-learn's objective, on the CPU or a GPU, many strengths on the same examples.

Minimised over the weights w_k and intercepts b_k of the classes k, for n examples x_i with a class y_i each:

    1/n sum_i -log p(y_i | x_i)  +  1/(2 C n) sum_k |w_k|^2,     p(k | x) = softmax_k(w_k . x + b_k)

which is that of `sklearn.linear_model.LogisticRegression(C=C)`: intercepts bear no penalty. It has one minimum but for
a constant that all intercepts may share, so where a fit starts changes its time alone.

A fit is L-BFGS, and then Newton's steps, in coordinates in which the problem is nearly round: `round_objective` says
why.

Everything is in float64, also where the features are float32: the steps that decide between two strengths are too
small for float32, and on two cores the narrow products take only about twice as long. Features are centred and
widened in chunks that fit into a processor's cache, so that no second copy of them is made.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diptych.evaluation.probes.log_losses import Likelihood
from diptych.evaluation.probes.round_objective import RoundObjective, newton, quasi_newton

MAX_ITERATIONS = 1000  # of L-BFGS: the paper's, appendix A.3
# With the Hessian, each as long as an iteration: all digits take 440 at C = 1e6, even ones against odd ones 1,600.
MAX_PRODUCTS = 3000

# Of the pull of the penalty on the weights: what of it the examples' pull may leave. At the minimum they cancel, and
# the penalty alone makes the objective curve by 1 / (C n) in every weight: so weights of the norm |w| are within
# TOLERANCE |w| of those at the minimum.
TOLERANCE = 1e-3

_LEAST_CURVATURE = (
    1e-12  # of a class that is told apart without doubt; 1e-6 made C = 1e6 take four times as long
)

_ROWS_ON_CPU = 512  # of 512 features, 2 MiB in float64; smaller and larger chunks were slower
_VALUES_ON_GPU = 2**25  # of features or logits, 256 MiB in float64


@dataclass(frozen=True)
class Fit:
    """One minimum. weights: (classes, width), intercept: (classes,), both float64 on the device of the examples.

    inverse_strength: scikit-learn's C. iterations: of L-BFGS. products: with the Hessian, in Newton's steps.
    gradient: what is left of it, as `TOLERANCE` measures it. converged: whether that is within the tolerance; if not,
    the weights are the best found.
    """

    weights: Tensor
    intercept: Tensor
    inverse_strength: float
    iterations: int
    products: int
    gradient: float
    converged: bool

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits (n, classes), float64 on the CPU, of features (n, width) on any device."""
        parts = [
            features[rows].to(self.weights) @ self.weights.T + self.intercept
            for rows in _chunks(features, len(self.weights))
        ]
        return torch.cat(parts).cpu()


class LogisticRegression:
    """A set of examples, made ready for fits at any number of strengths."""

    def __init__(self, features: Tensor, likelihood: Likelihood) -> None:
        """features: (n, width), floating point, on the device that is to compute (one with float64, so not mps)."""
        self.features = features
        self.likelihood = likelihood.to(features.device)
        count = 0.0
        total = features.new_zeros(features.shape[1], dtype=torch.float64)
        for rows in self._chunks():
            total += features[rows].sum(dim=0, dtype=torch.float64)
            count += len(features[rows])
        self._mean = total / count
        # (width, axes) and (axes,): the axes along which the centred features vary, and how much.
        self._axes, self._variance = self._principal_axes()
        self.spread = float(self._variance.sum().sqrt())  # root mean square of the length of centred features

    def fit(
        self,
        inverse_strength: float,
        start: Fit | None = None,
        *,
        tolerance: float = TOLERANCE,
        max_iterations: int = MAX_ITERATIONS,
        max_products: int = MAX_PRODUCTS,
    ) -> Fit:
        """Find the minimum for one C.

        start: the fit of a C nearby, which saves time. tolerance: as `TOLERANCE` says. max_iterations: of L-BFGS.
        max_products: with the Hessian, of Newton's steps.
        """
        penalty = self.likelihood.penalty / (inverse_strength * len(self.features))
        # In the coordinates of the centred features, whose intercept does not move when weights do.
        weights = self._mean.new_zeros(self.likelihood.classes, len(self._mean))
        intercept = weights.new_zeros(len(weights))
        if start is not None:
            weights, intercept = start.weights, start.intercept + start.weights @ self._mean
        around = self._around(weights, intercept, penalty)
        point, iterations = quasi_newton(around, max_iterations)
        products, better = 0, True
        while True:
            around = self._around(*around.weights(point), penalty)
            value, gradient = around.evaluate(around.point)
            left = around.size(gradient) / around.pull
            if left <= tolerance or products >= max_products or not better:
                break
            point, more, better = newton(around, value, gradient, tolerance, max_products - products)
            products += more
        weights, intercept = around.place
        return Fit(
            weights=weights,
            intercept=intercept - weights @ self._mean,
            inverse_strength=inverse_strength,
            iterations=iterations,
            products=products,
            gradient=left,
            converged=left <= tolerance,
        )

    @property
    def independent(self) -> bool:
        """Whether each class is a problem of its own."""
        return self.likelihood.independent

    def objective(self, weights: Tensor, intercept: Tensor, penalty: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean loss with its penalty, and its gradients by weights and intercept, of centred features."""
        value = weights.new_zeros(())
        by_weights, by_intercept = torch.zeros_like(weights), torch.zeros_like(intercept)
        for rows in self._chunks():
            centred = self._centre(rows)
            total, residual = self.likelihood.loss(torch.addmm(intercept[:, None], weights, centred.T), rows)
            value += total
            by_weights.addmm_(residual, centred)
            by_intercept += residual.sum(dim=1)
        count = len(self.features)
        value = value / count + penalty / 2 * weights.square().sum()
        return value, by_weights / count + penalty * weights, by_intercept / count

    def turn(
        self, place: tuple[Tensor, Tensor], change: tuple[Tensor, Tensor], penalty: float
    ) -> tuple[Tensor, Tensor]:
        """Return how the gradients of `objective` at a place change, to first order, with a change of the place.

        place, change: weights (classes, width) and intercepts (classes,) of centred features, as is what is returned.
        """
        by_weights, by_intercept = map(torch.zeros_like, place)
        both = [torch.cat(pair) for pair in zip(place, change, strict=True)]
        for rows in self._chunks():
            centred = self._centre(rows)
            # The centred features are read once for both.
            logits, by_change = torch.addmm(both[1][:, None], both[0], centred.T).chunk(2)
            turned = self.likelihood.turn(logits, by_change, rows)
            by_weights.addmm_(turned, centred)
            by_intercept += turned.sum(dim=1)
        count = len(self.features)
        return by_weights / count + penalty * change[0], by_intercept / count

    def _around(self, weights: Tensor, intercept: Tensor, penalty: float) -> RoundObjective:
        curvature = torch.zeros_like(intercept)
        for rows in self._chunks():
            logits = torch.addmm(intercept[:, None], weights, self._centre(rows).T)
            curvature += self.likelihood.curvature(logits, rows)
        of_classes = (curvature / len(self.features)).clamp_min(_LEAST_CURVATURE)[:, None]
        unit = torch.cat([of_classes * self._variance + penalty, of_classes], dim=1).rsqrt()
        return RoundObjective(self, penalty, (weights, intercept), self._axes, unit)

    def _principal_axes(self) -> tuple[Tensor, Tensor]:
        """Return the axes (width, axes) along which the centred features vary, and their variance (axes,).

        With fewer examples than features there are as many axes as examples: the weights have no part beyond.
        """
        count, width = self.features.shape
        if count < width:
            _, spread, axes = torch.linalg.svd(self._centre(slice(0, count)), full_matrices=False)
            return axes.T.contiguous(), spread.square() / count
        covariance = self._mean.new_zeros(width, width)
        for rows in self._chunks():
            centred = self._centre(rows)
            covariance.addmm_(centred.T, centred)
        variance, axes = torch.linalg.eigh(covariance / count)
        return axes, variance.clamp_min(0)  # rounding makes the smallest ones negative

    def _centre(self, rows: slice) -> Tensor:
        return self.features[rows] - self._mean  # float64, as the mean is

    def _chunks(self) -> Iterator[slice]:
        return _chunks(self.features, self.likelihood.classes)


def fitting_device(device: torch.device) -> torch.device:
    """Return where to fit what was computed on `device`: there, unless it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def _chunks(features: Tensor, classes: int) -> Iterator[slice]:
    """Split the rows, so that neither all features in float64 nor all logits are ever held."""
    count, width = features.shape
    on_cpu = features.device.type == "cpu"
    step = _ROWS_ON_CPU if on_cpu else max(1, _VALUES_ON_GPU // max(width, classes))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
