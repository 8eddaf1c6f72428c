"""Identify this process among those that train one model, and exchange rows and sums between them.

Everything here is the identity in a single process, so callers need no second path. A process that torchrun started
reads its rank from the environment. Gradients are summed, never averaged, so that uneven shares of a batch have the
weight of their rows.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from diptych.errors import DiptychError

T = TypeVar("T")

# Renamed in PyTorch 2.13, which warns of the old names.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True)
class World:
    """The rank of this process, and the number of processes."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Return whether this process is the one that reports and writes."""
        return self.rank == 0


def world() -> World:
    """Return the processes of the running group; one process if there is none."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


@contextlib.contextmanager
def processes(device: str) -> Iterator[World]:
    """Enter the process group that torchrun has prepared; without torchrun, a single process.

    device: "cuda" communicates over NCCL and takes the GPU of the process's local rank; any other uses gloo. A running
    group is used and left as it is.
    """
    if "RANK" not in os.environ or world().size > 1 or dist.is_initialized():
        yield world()
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        yield world()
    finally:
        dist.destroy_process_group()


def share(count: int, rank: int, size: int) -> range:
    """Return the contiguous rows of a batch of `count` that belong to a process; the first ones take one more."""
    small, more = divmod(count, size)
    first = rank * small + min(rank, more)
    return range(first, first + small + (rank < more))


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum the `value` of all processes, of any shape, in place."""
    if world().size > 1:
        dist.all_reduce(value)
    return value


def max_over_processes(value: Tensor) -> Tensor:
    """Take the maximum of the `value` of all processes, element by element, in place."""
    if world().size > 1:
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


def wait_for_all() -> None:
    """Wait until every process has called this."""
    if world().size > 1:
        dist.barrier()


def row_counts(rows: int, device: torch.device) -> list[int]:
    """Return the number of rows of each process."""
    here = world()
    if here.size == 1:
        return [rows]
    counts = torch.zeros(here.size, dtype=torch.int64, device=device)
    counts[here.rank] = rows
    return [int(count) for count in sum_over_processes(counts)]


def gather_objects(value: T) -> list[T]:
    """Return the `value` of all processes, small and of plain types, in the order of the ranks."""
    if world().size == 1:
        return [value]
    everybody: list[T] = [value] * world().size
    dist.all_gather_object(everybody, value)
    return everybody


@contextlib.contextmanager
def everybody_fails_together() -> Iterator[None]:
    """Run a part without collectives; a DiptychError in one process is raised in all of them.

    Else a process would wait in the next collective for another that has failed.
    """
    failure: DiptychError | None = None
    try:
        yield
    except DiptychError as error:
        failure = error
    messages = gather_objects(None if failure is None else str(failure))
    if failure is not None:
        raise failure
    for rank, message in enumerate(messages):
        if message is not None:
            raise DiptychError(f"process {rank}: {message}")


def gather_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Gather the rows of all processes, in the order of the ranks: (sum of counts, ...). Gradients do not flow."""
    if len(counts) == 1:
        return rows.detach()
    most = max(counts)
    padded = rows.new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    everybody = rows.new_empty(len(counts) * most, *rows.shape[1:])
    _all_gather(everybody, padded)
    parts = torch.split(everybody, most)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def scatter_sum(everybody: Tensor, counts: Sequence[int]) -> Tensor:
    """Sum `everybody` over the processes, and return this process's rows: the adjoint of `gather_rows`."""
    if len(counts) == 1:
        return everybody
    most = max(counts)
    padded = everybody.new_zeros(len(counts), most, *everybody.shape[1:])
    for number, part in enumerate(torch.split(everybody, list(counts))):
        padded[number, : len(part)] = part
    mine = everybody.new_empty(most, *everybody.shape[1:])
    _reduce_scatter(mine, padded.flatten(0, 1))
    return mine[: counts[world().rank]]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor, counts: Sequence[int]) -> Tensor:
        ctx.counts = counts  # type: ignore[attr-defined]
        return gather_rows(rows, counts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return scatter_sum(gradients[0], ctx.counts), None  # type: ignore[attr-defined]


def gather_rows_with_gradient(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Gather rows as `gather_rows` does; the gradients of all processes return to the rows' owner, summed."""
    if len(counts) == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, counts)  # type: ignore[no-untyped-call]
    return gathered


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, value: Tensor) -> Tensor:
        return sum_over_processes(value.clone())

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        return sum_over_processes(gradients[0].clone())


def sum_over_processes_with_gradient(value: Tensor) -> Tensor:
    """Sum the `value` of all processes; the gradients of all that used the sum return, summed."""
    if world().size == 1:
        return value
    total: Tensor = _SumOverProcesses.apply(value)  # type: ignore[no-untyped-call]
    return total
