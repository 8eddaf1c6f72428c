"""The input of an objective: this process's rows of a global batch, and the rows of all processes."""

from dataclasses import dataclass

from torch import Tensor

from diptych.distributed import gather_rows, gather_rows_with_gradient, row_counts, world


@dataclass(frozen=True)
class Pairs:
    """The embeddings of one global batch of pairs, as one process sees them.

    left, right: (local, dim), unit length; the rows that this process encoded, through which gradients flow.
    all_left, all_right: (global, dim); the rows of all processes, in the order of the ranks.
    first: the global index of this process's first row.
    groups: (global,) integers, or None if every row is a concept of its own. Rows with equal ids show the same
        concept: they are positives of each other.
    """

    left: Tensor
    right: Tensor
    all_left: Tensor
    all_right: Tensor
    first: int = 0
    groups: Tensor | None = None

    @classmethod
    def whole(cls, left: Tensor, right: Tensor, groups: Tensor | None = None) -> "Pairs":
        """Make the pairs of a single process, which holds every row."""
        return cls(left, right, left, right, 0, groups)

    @classmethod
    def gathered(cls, left: Tensor, right: Tensor, groups: Tensor | None = None) -> "Pairs":
        """Gather the pairs of all processes, each of which calls this with its own rows. groups: (local,).

        Gradients flow back to the process that owns a row, summed over all that used it.
        """
        counts = row_counts(len(left), left.device)
        if len(counts) == 1:
            return cls.whole(left, right, groups)
        return cls(
            left,
            right,
            gather_rows_with_gradient(left, counts),
            gather_rows_with_gradient(right, counts),
            sum(counts[: world().rank]),
            None if groups is None else gather_rows(groups, counts),
        )
