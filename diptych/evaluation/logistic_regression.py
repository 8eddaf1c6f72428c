"""Logistic regression with scikit-learn's objective, on the CPU or a GPU, many strengths on the same examples.

Minimised over the weights w_k and intercepts b_k of the classes k, for n examples x_i with a class y_i each:

    1/n sum_i -log p(y_i | x_i)  +  1/(2 C n) sum_k |w_k|^2,     p(k | x) = softmax_k(w_k . x + b_k)

which is that of `sklearn.linear_model.LogisticRegression(C=C)`: intercepts bear no penalty. It has one minimum but for
a constant that all intercepts may share, so where a fit starts changes its time alone.

The fit is PyTorch's L-BFGS with a strong-Wolfe line search (Nocedal and Wright 2006, chapters 3 and 7), in coordinates
in which the problem is nearly round. At weights with the probabilities p_ik, the Hessian is close to one block a
class, c_k S + I / (C n): S the covariance of the features, c_k the mean of p_ik (1 - p_ik). Its eigenvectors are those
of S, which are found once, for every strength. In the features' own coordinates the same optimiser needed 2 to 7 times
the evaluations for a worse minimum (digits; docs/probes.md), and an L-BFGS of our own nothing else to gain.

Everything is in float64, also where the features are float32: the steps that decide between two strengths are too
small for float32, and on two cores the narrow products take only about twice as long. Features are centred and
widened in chunks that fit into a processor's cache, so that no second copy of them is made.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ITERATIONS = 1000  # the paper's, appendix A.3

# Of every component of the gradient, in the round coordinates: its square is about twice the decrease of the mean loss,
# in nats, that is still to be had along it. Always stricter than scikit-learn's 1e-4 of the plain gradient so far.
TOLERANCE = 1e-6

_ROWS_ON_CPU = 512  # of 512 features, 2 MiB in float64; smaller and larger chunks were slower
_VALUES_ON_GPU = 2**25  # of features or logits, 256 MiB in float64
_LEAST_CURVATURE = (
    1e-6  # of a class that is told apart perfectly, whose intercept could otherwise jump anywhere
)


class Likelihood(Protocol):
    """What the examples are known to be, and how badly logits say it.

    classes: rows of the logits. penalty: what multiplies the penalty of the weights.
    """

    @property
    def classes(self) -> int: ...

    @property
    def penalty(self) -> float: ...

    def to(self, device: torch.device) -> "Likelihood":
        """The same on another device."""
        ...

    def loss(self, logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """The sum of the losses (), in nats, and its gradient (classes, m) by the logits (classes, m) of `rows`.

        The logits may be overwritten.
        """
        ...

    def curvature(self, logits: Tensor, rows: slice) -> Tensor:
        """(classes,): the sum over `rows` of each loss's second derivative by its own logit."""
        ...


@dataclass(frozen=True)
class OneOf:
    """Each example is of exactly one class: softmax. target: (n,) integers below `classes`; each class occurs.

    Two classes are scikit-learn's case of one weight vector w with |w|^2 / (2 C): ours are -w/2 and w/2, whose squares
    add up to half of that, hence the penalty of 2.
    """

    target: Tensor
    classes: int

    def __post_init__(self) -> None:
        _need_two_kinds(self.target.bincount(minlength=self.classes), "no example")

    @property
    def penalty(self) -> float:
        return 2.0 if self.classes == 2 else 1.0

    def to(self, device: torch.device) -> "OneOf":
        return OneOf(self.target.to(device), self.classes)

    def loss(self, logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        target = self.target[rows]
        normaliser = logits.logsumexp(dim=0)
        total = (normaliser - logits.gather(0, target[None])[0]).sum()
        gradient = logits.sub_(normaliser).exp_()
        gradient[target, torch.arange(len(target), device=target.device)] -= 1
        return total, gradient

    def curvature(self, logits: Tensor, rows: slice) -> Tensor:
        probability = logits.softmax(dim=0)
        return (probability * (1 - probability)).sum(dim=1)


@dataclass(frozen=True)
class AnyOf:
    """Each example may be of any number of classes: a two-class regression each, one against the rest.

    relevant: (n, classes) flags; every class has examples that are of it and ones that are not. judged: (n, classes),
    False where an example counts neither as one nor as the other.
    """

    relevant: Tensor
    judged: Tensor

    def __post_init__(self) -> None:
        _need_two_kinds((self.relevant & self.judged).sum(dim=0), "no example")
        _need_two_kinds((~self.relevant & self.judged).sum(dim=0), "no example of anything else")

    @property
    def classes(self) -> int:
        return self.relevant.shape[1]

    @property
    def penalty(self) -> float:
        return 1.0

    def to(self, device: torch.device) -> "AnyOf":
        return AnyOf(self.relevant.to(device), self.judged.to(device))

    def loss(self, logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        relevant, judged = self.relevant[rows].T, self.judged[rows].T
        total = (F.softplus(logits) - logits * relevant)[judged].sum()
        return total, (logits.sigmoid() - relevant.to(logits.dtype)) * judged

    def curvature(self, logits: Tensor, rows: slice) -> Tensor:
        probability = logits.sigmoid()
        return (probability * (1 - probability) * self.judged[rows].T).sum(dim=1)


@dataclass(frozen=True)
class Fit:
    """One minimum. weights: (classes, width), intercept: (classes,), both float64 on the device of the examples.

    inverse_strength: scikit-learn's C. iterations: of L-BFGS. gradient: the largest component that is left, in the
    measure of `TOLERANCE`. converged: whether that is within the tolerance; if not, the weights are the best found.
    """

    weights: Tensor
    intercept: Tensor
    inverse_strength: float
    iterations: int
    gradient: float
    converged: bool

    def logits(self, features: Tensor) -> Tensor:
        """(n, classes), float64 on the CPU, of features (n, width) on any device."""
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
        self._rotation, self._variance = self._principal_axes()

    def fit(
        self,
        inverse_strength: float,
        start: Fit | None = None,
        *,
        tolerance: float = TOLERANCE,
        max_iterations: int = MAX_ITERATIONS,
    ) -> Fit:
        """The minimum for one C. start: the fit of a C nearby, which saves time."""
        classes = self.likelihood.classes
        penalty = self.likelihood.penalty / (inverse_strength * len(self.features))
        # In the coordinates of the centred features, whose intercept does not move when weights do.
        weights = self._mean.new_zeros(classes, len(self._mean))
        intercept = self._mean.new_zeros(classes)
        if start is not None:
            weights, intercept = start.weights, start.intercept + start.weights @ self._mean
        curvature = self._curvature(weights, intercept).clamp_min(_LEAST_CURVATURE)
        unit = (curvature[:, None] * self._variance + penalty).rsqrt()
        unit_intercept = curvature.rsqrt()
        # One row a class: its weights along the principal axes, then its intercept.
        point = torch.cat([weights @ self._rotation / unit, (intercept / unit_intercept)[:, None]], dim=1)
        point.requires_grad_()

        def unfold() -> tuple[Tensor, Tensor]:
            rotated, last = point.detach().tensor_split([len(self._variance)], dim=1)
            return (unit * rotated) @ self._rotation.T, unit_intercept * last[:, 0]

        @torch.no_grad()
        def evaluate() -> Tensor:
            weights, intercept = unfold()
            value, by_weights, by_intercept = self._objective(weights, intercept, penalty)
            along_axes = unit * (by_weights @ self._rotation)
            point.grad = torch.cat([along_axes, (unit_intercept * by_intercept)[:, None]], dim=1)
            return value

        optimizer = torch.optim.LBFGS(
            [point],
            max_iter=max_iterations,
            max_eval=25 * max_iterations,  # a line search's own limit is 25
            tolerance_grad=tolerance,
            tolerance_change=0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )
        optimizer.step(evaluate)  # type: ignore[no-untyped-call]
        evaluate()
        assert point.grad is not None
        gradient = float(point.grad.abs().max())
        weights, intercept = unfold()
        return Fit(
            weights=weights,
            intercept=intercept - weights @ self._mean,
            inverse_strength=inverse_strength,
            iterations=int(optimizer.state[point]["n_iter"]),
            gradient=gradient,
            # The same sums in another order of threads may differ in their last digits.
            converged=gradient <= tolerance * (1 + 1e-6),
        )

    def _objective(self, weights: Tensor, intercept: Tensor, penalty: float) -> tuple[Tensor, Tensor, Tensor]:
        """The mean loss with its penalty, and its gradients by weights and intercept, all of centred features."""
        value = weights.new_zeros(())
        by_weights, by_intercept = torch.zeros_like(weights), torch.zeros_like(intercept)
        for rows in self._chunks():
            centred = self._centred(rows)
            total, residual = self.likelihood.loss(torch.addmm(intercept[:, None], weights, centred.T), rows)
            value += total
            by_weights.addmm_(residual, centred)
            by_intercept += residual.sum(dim=1)
        count = len(self.features)
        value = value / count + penalty / 2 * weights.square().sum()
        return value, by_weights / count + penalty * weights, by_intercept / count

    def _curvature(self, weights: Tensor, intercept: Tensor) -> Tensor:
        """(classes,): c_k of the module's text."""
        total = torch.zeros_like(intercept)
        for rows in self._chunks():
            logits = torch.addmm(intercept[:, None], weights, self._centred(rows).T)
            total += self.likelihood.curvature(logits, rows)
        return total / len(self.features)

    def _principal_axes(self) -> tuple[Tensor, Tensor]:
        """The axes (width, axes) along which the centred features vary, and their variance (axes,).

        With fewer examples than features there are as many axes as examples: the weights have no part beyond.
        """
        count, width = self.features.shape
        if count < width:
            _, spread, axes = torch.linalg.svd(self._centred(slice(0, count)), full_matrices=False)
            return axes.T.contiguous(), spread.square() / count
        covariance = self._mean.new_zeros(width, width)
        for rows in self._chunks():
            centred = self._centred(rows)
            covariance.addmm_(centred.T, centred)
        variance, axes = torch.linalg.eigh(covariance / count)
        return axes, variance.clamp_min(0)  # rounding makes the smallest ones negative

    def _centred(self, rows: slice) -> Tensor:
        return self.features[rows] - self._mean  # float64, as the mean is

    def _chunks(self) -> Iterator[slice]:
        return _chunks(self.features, self.likelihood.classes)


def fitting_device(device: torch.device) -> torch.device:
    """Where to fit what was computed on `device`: there, unless it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def _chunks(features: Tensor, classes: int) -> Iterator[slice]:
    """Rows that are worked on at a time: neither all features in float64 nor all logits are ever held."""
    count, width = features.shape
    on_cpu = features.device.type == "cpu"
    step = _ROWS_ON_CPU if on_cpu else max(1, _VALUES_ON_GPU // max(width, classes))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _need_two_kinds(counts: Tensor, lack: str) -> None:
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing:
        raise ValueError(f"class {missing[0]}: {lack} of it; its intercept would be infinite")
