"""Minimise a smooth convex objective of weights and intercepts in coordinates in which it is nearly round.

The first steps are PyTorch's L-BFGS with a strong-Wolfe line search (Nocedal and Wright 2006, chapters 3 and 7). At
weights with the probabilities p_ik, the Hessian is close to one block a class, c_k S + I / (C n): S the covariance of
the features, c_k the mean of p_ik (1 - p_ik). Its eigenvectors are those of S, which are found once, for every C.

L-BFGS comes near the minimum, and stands still there where C is large and the classes can be told apart: losses are
all but zero, while the weights that the penalty prefers are far away (all digits, C = 1e4: after 1,000 iterations they
were off by 0.7 of the largest). So Newton's steps end the fit, each in coordinates that are round where it starts, and
solved for by conjugate gradients from exact products with the Hessian (the same book, algorithm 7.1): near the minimum
each leaves of the error hardly more than its square. That is sooner there as well: docs/results/linear_probe.md.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# L-BFGS ends where every component of the gradient in the round coordinates, over the root of the objective, is below
# this. Half the square of that ratio is the share of the objective that can still be saved along the component. Fits
# took equally long from 1e-2 to 1e-3, and twice as long at 1e-4.
_NEAR = 1e-3

_ENOUGH_DECREASE = 1e-4  # of what the slope promises, by a step; Nocedal and Wright's c1
_SHORTEST = 1e-6  # share of a step below which no decrease is sought
_ROUNDING = 1e-13  # of the objective: an increase that may be none


class Objective(Protocol):
    """What is minimised, as a function of the weights and intercepts of centred features.

    spread: root mean square of the length of centred features. independent: whether each class is a problem of its own.
    """

    spread: float

    @property
    def independent(self) -> bool: ...

    def objective(self, weights: Tensor, intercept: Tensor, penalty: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the value and its gradients by weights and intercept."""

    def turn(
        self, place: tuple[Tensor, Tensor], change: tuple[Tensor, Tensor], penalty: float
    ) -> tuple[Tensor, Tensor]:
        """Return the product of the Hessian at a place with a change of the place."""


@dataclass(frozen=True)
class RoundObjective:
    """The objective of one strength in coordinates (classes, axes + 1) in which it is nearly round about a place.

    place: the weights (classes, width) and intercepts (classes,) of centred features. axes: (width, axes), the
    principal ones. unit: (classes, axes + 1), how far a step of 1 goes along each, and in the last column in the
    intercept.
    """

    examples: Objective
    penalty: float
    place: tuple[Tensor, Tensor]
    axes: Tensor
    unit: Tensor

    @property
    def point(self) -> Tensor:
        """Return the place in these coordinates."""
        weights, intercept = self.place
        return torch.cat([weights @ self.axes, intercept[:, None]], dim=1) / self.unit

    def weights(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights (classes, width) and intercepts (classes,) of a point, or of the difference of two."""
        along_axes = self.unit * point
        return along_axes[:, :-1] @ self.axes.T, along_axes[:, -1]

    def evaluate(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective (), and its gradient (classes, axes + 1)."""
        value, *gradients = self.examples.objective(*self.weights(point), self.penalty)
        return value, self._by_point(*gradients)

    def turn(self, change: Tensor) -> Tensor:
        """Return the product of the Hessian at the place with a change of the point, both (classes, axes + 1)."""
        return self._by_point(*self.examples.turn(self.place, self.weights(change), self.penalty))

    @property
    def pull(self) -> float:
        """Return the norm of the penalty's gradient; of weights of 0, a number above it."""
        weights, _ = self.place
        return max(self.penalty * float(weights.norm()), torch.finfo(weights.dtype).tiny)

    def size(self, gradient: Tensor) -> float:
        """Return the norm of a gradient by weights and intercepts, these as for a feature as long as all others."""
        plain = gradient / self.unit
        plain[:, -1] *= self.examples.spread
        return float(plain.norm())

    def _by_point(self, by_weights: Tensor, by_intercept: Tensor) -> Tensor:
        return torch.cat([by_weights @ self.axes, by_intercept[:, None]], dim=1) * self.unit


def quasi_newton(around: RoundObjective, max_iterations: int) -> tuple[Tensor, int]:
    """Find a point near the minimum, and how many iterations of L-BFGS it took."""
    point = around.point.requires_grad_()

    @torch.no_grad()
    def evaluate() -> Tensor:
        value, point.grad = around.evaluate(point)
        return value

    optimizer = torch.optim.LBFGS(
        [point],
        max_iter=max_iterations,
        max_eval=25 * max_iterations,  # a line search's own limit is 25
        tolerance_grad=_NEAR * math.sqrt(evaluate()),
        tolerance_change=0,
        history_size=10,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(evaluate)
    return point.detach(), int(optimizer.state[point]["n_iter"])


def newton(
    around: RoundObjective, value: Tensor, gradient: Tensor, tolerance: float, max_products: int
) -> tuple[Tensor, int, bool]:
    """Return the point after one step from the place, the products it took, and whether it is any better.

    value, gradient: the objective and its gradient at the place.
    """
    left = around.size(gradient)
    # The nearer, the sharper, so that the error falls faster than by any factor; but not sharper than is asked for.
    aim = max(left * min(0.5, math.sqrt(left / around.pull)), 0.5 * tolerance * around.pull)
    # Conjugate gradients (Nocedal and Wright 2006, algorithm 5.2), of each class for itself where classes do not
    # compete: three of digits at C = 1e6 took more than twice as many products together.
    over = 1 if around.examples.independent else (0, 1)
    least = torch.finfo(gradient.dtype).tiny  # what is solved to the last bit has no direction any more
    change, residual, direction = torch.zeros_like(gradient), -gradient, -gradient
    square = residual.square().sum(over, keepdim=True)
    products = 0
    while around.size(residual) > aim and products < max_products:
        turned = around.turn(direction)
        length = square / (direction * turned).sum(over, keepdim=True).clamp_min(least)
        change += length * direction
        residual = residual - length * turned
        before, square = square, residual.square().sum(over, keepdim=True)
        direction = residual + square / before.clamp_min(least) * direction
        products += 1
    share = _share(around, change, float(value), float((gradient * change).sum()))
    return around.point + share * change, products, share > 0


def _share(around: RoundObjective, change: Tensor, value: float, slope: float) -> float:
    """Return the first of 1, 1/2, 1/4, ... of a change that lowers the objective enough; 0 if none does."""
    share = 1.0
    while share > _SHORTEST:
        most = value * (1 + _ROUNDING) + _ENOUGH_DECREASE * share * slope
        if float(around.evaluate(around.point + share * change)[0]) <= most:
            return share
        share /= 2
    return 0.0
