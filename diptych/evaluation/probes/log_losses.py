"""What labelled examples are known to be, and how badly logits say it: the log losses of a linear probe."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Likelihood(Protocol):
    """What the examples are known to be, and how badly logits say it.

    classes: rows of the logits. penalty: what multiplies the penalty of the weights. independent: whether a class's
    loss depends on its own logits alone.
    """

    independent: ClassVar[bool]

    @property
    def classes(self) -> int: ...

    @property
    def penalty(self) -> float: ...

    def to(self, device: torch.device) -> "Likelihood":
        """Return the same on another device."""
        ...

    def loss(self, logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses (), in nats, and its gradient (classes, m) by the logits (classes, m) of `rows`.

        The logits may be overwritten.
        """
        ...

    def curvature(self, logits: Tensor, rows: slice) -> Tensor:
        """Return, (classes,), the sum over `rows` of each loss's second derivative by its own logit."""
        ...

    def turn(self, logits: Tensor, change: Tensor, rows: slice) -> Tensor:
        """Return how the gradient of `loss` changes, to first order, with a change of the logits, both (classes, m).

        Both may be overwritten.
        """
        ...


@dataclass(frozen=True)
class OneOf:
    """Each example is of exactly one class: softmax. target: (n,) integers below `classes`; each class occurs.

    Two classes are scikit-learn's case of one weight vector w with |w|^2 / (2 C): ours are -w/2 and w/2, whose squares
    add up to half of that, hence the penalty of 2.
    """

    independent: ClassVar[bool] = False

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
        column = torch.arange(len(target), device=target.device)
        # -log p of the right class is log(1 + the odds of the others): exact also where that is all but nothing.
        ahead = logits.sub_(logits[target, column])
        most = ahead.amax(dim=0)  # 0 or more: the right class is 0 ahead of itself
        odds = ahead.sub_(most).exp_()
        odds[target, column] = 0
        others, right = odds.sum(dim=0), torch.exp(-most)
        total = torch.where(most > 0, most + torch.log(right + others), torch.log1p(others)).sum()
        gradient = odds.div_(right + others)
        gradient[target, column] = -gradient.sum(dim=0)
        return total, gradient

    def curvature(self, logits: Tensor, rows: slice) -> Tensor:
        probability = logits.softmax(dim=0)
        return (probability * (1 - probability)).sum(dim=1)

    def turn(self, logits: Tensor, change: Tensor, rows: slice) -> Tensor:
        target = self.target[rows]
        probability = logits.softmax(dim=0)
        # Only differences count; those from the right class do not cancel where it has all the probability.
        beyond = change.sub_(change[target, torch.arange(len(target), device=target.device)])
        return beyond.sub_((probability * beyond).sum(dim=0)).mul_(probability)


@dataclass(frozen=True)
class AnyOf:
    """Each example may be of any number of classes: a two-class regression each, one against the rest.

    relevant: (n, classes) flags; every class has examples that are of it and ones that are not. judged: (n, classes),
    False where an example counts neither as one nor as the other.
    """

    independent: ClassVar[bool] = True

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
        judged = self.judged[rows].T
        sign = 1 - 2 * self.relevant[rows].T.to(logits.dtype)
        wrong = logits.mul_(sign)  # exact also where it is all but impossible
        return F.softplus(wrong)[judged].sum(), wrong.sigmoid() * sign * judged

    def curvature(self, logits: Tensor, rows: slice) -> Tensor:
        probability = logits.sigmoid()
        return (probability * (1 - probability) * self.judged[rows].T).sum(dim=1)

    def turn(self, logits: Tensor, change: Tensor, rows: slice) -> Tensor:
        probability = logits.sigmoid()
        return change.mul_(probability * (1 - probability)).mul_(self.judged[rows].T)


def _need_two_kinds(counts: Tensor, lack: str) -> None:
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing:
        raise ValueError(f"class {missing[0]}: {lack} of it; its intercept would be infinite")
