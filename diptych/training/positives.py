"""Which rows of a global batch are positives of each other."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from diptych.data.batch import Batch
from diptych.distributed import gather_rows, row_counts, world

Positives = Literal["pair", "caption", "image", "caption-or-image"]


def with_positives(batch: Batch, positives: Positives, device: torch.device) -> Batch:
    """Return this process's batch with `groups` that are equal for positives, among the rows of all processes.

    positives: "caption" takes rows with the same first caption, "image" rows with the same image, "caption-or-image"
    both, "pair" changes nothing. device: where the processes exchange their rows.
    """
    if positives in ("pair", "caption"):
        return batch
    assert batch.images is not None, "the loader tells images apart where their rows are positives"
    if positives == "image":
        return replace(batch, groups=batch.images)
    counts = row_counts(len(batch.groups), device)
    everybody = joined_groups(
        gather_rows(batch.groups.to(device), counts), gather_rows(batch.images.to(device), counts)
    )
    first = sum(counts[: world().rank])
    return replace(batch, groups=everybody[first : first + len(batch.groups)])


def joined_groups(one: Tensor, other: Tensor) -> Tensor:
    """Return (n,) int64: equal for rows that are linked by a chain of rows with equal ids in `one` or `other`, (n,).

    An objective takes one id a row. So an image with the captions A and B, and another image with the caption B, are
    one group. The id of a group is the index of its first row.
    """
    rows = torch.arange(len(one), device=one.device)
    found = rows
    classes = [torch.unique(ids, return_inverse=True)[1] for ids in (one, other)]
    while True:
        before = found
        for members in classes:
            least = rows.scatter_reduce(0, members, found, "amin", include_self=False)
            found = least[members]
        found = found[found]  # the row that a row is linked to may know of an earlier one: long chains halve
        if torch.equal(found, before):
            return found
