"""Steps whose loss or gradient is not a number: each is reported, and too many in a row end the run."""

from collections.abc import Callable

from diptych.errors import NotFiniteError
from diptych.training.step import StepResult


def tell_not_finite(
    step: int, result: StepResult, in_a_row: int, most: int, say: Callable[[str], None]
) -> None:
    """Say that a step updated nothing. in_a_row: such steps until now. most: how many of them a run may have.

    Raises:
        NotFiniteError: there were more than `most` in a row.
    """
    say(f"step {step}: loss {result.loss}, gradient norm {result.gradient_norm}; nothing was updated")
    if in_a_row > most:
        raise NotFiniteError(
            f"step {step}: the loss or the gradient was not a number for {in_a_row} steps in a row, none of which "
            "updated anything; the last checkpoint is as it was. A lower learning rate, a longer warm-up, or precision "
            "= 'float32' usually helps"
        )
