"""How several processes share one model: PyTorch's DistributedDataParallel, or its fully sharded `fully_shard`.

Both sum gradients here, where PyTorch's default is to average them: the loss is a sum over the rows of all
processes, divided by their global number, so that shares of any size weigh as their rows do.
"""

import contextlib
import gc
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from diptych.distributed import sum_over_processes, world
from diptych.models.modified_resnet import Bottleneck
from diptych.models.transformer import Block

Forward = Callable[..., Tensor]


class Parallel(Protocol):
    """What the step asks of a way to share the model."""

    @property
    def towers(self) -> Mapping[str, Forward]:
        """What to call in place of each tower."""

    def syncing(self, on: bool) -> contextlib.AbstractContextManager[None]:
        """A context in which backward passes do, or do not, sum gradients over the processes."""

    def finish(self) -> None:
        """Sum what no tower owns: the gradients of the other parameters; batch-norm statistics become means."""

    def close(self) -> None:
        """Let go of the process group, which must not be ended before."""


class Alone:
    """A single process."""

    def __init__(self, towers: Mapping[str, nn.Module]) -> None:
        self.towers: Mapping[str, Forward] = towers

    def syncing(self, on: bool) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def finish(self) -> None:
        """Nothing is shared."""

    def close(self) -> None:
        """Nothing is held."""


class _Shared:
    """What both ways have in common."""

    def __init__(self, model: nn.Module, towers: Mapping[str, nn.Module]) -> None:
        self._model = model
        self._rest = _outside(model, towers)

    def finish(self) -> None:
        """See `Parallel`."""
        _sum_gradients(self._rest)
        _mean_statistics(self._model)


class Replicated(_Shared):
    """Every process holds the whole model (DistributedDataParallel)."""

    def __init__(self, model: nn.Module, towers: Mapping[str, nn.Module]) -> None:
        super().__init__(model, towers)
        self._wrapped = {name: _replicate(tower) for name, tower in towers.items()}
        self.towers: Mapping[str, Forward] = self._wrapped

    @contextlib.contextmanager
    def syncing(self, on: bool) -> Iterator[None]:
        """See `Parallel`. The forward pass must be in it as well."""
        with contextlib.ExitStack() as stack:
            for tower in self._wrapped.values():
                if not on and isinstance(tower, DistributedDataParallel):
                    stack.enter_context(tower.no_sync())
            yield

    def close(self) -> None:
        """Let go of the reducers.

        Where a reducer is the last to know a gloo group, it joins the group's threads with Python's lock held, and
        one of them may be waiting for that lock (seen in PyTorch 2.13).
        """
        self._wrapped.clear()
        gc.collect()


class Sharded(_Shared):
    """Every process holds a part of each parameter (`fully_shard`, also called FSDP2), block by block."""

    def __init__(self, model: nn.Module, towers: Mapping[str, nn.Module], device: str) -> None:
        super().__init__(model, towers)
        mesh = init_device_mesh(device, (world().size,))
        self._towers = dict(towers)
        for tower in towers.values():
            for part in tower.modules():
                if isinstance(part, Block | Bottleneck):
                    fully_shard(part, mesh=mesh)
                if isinstance(part, Block):
                    register_fsdp_forward_method(part, "packed")
            fully_shard(tower, mesh=mesh)
            for shard in _sharded_parts(tower):
                shard.set_gradient_divide_factor(1.0)
                shard.set_force_sum_reduction_for_comms(True)
        self.towers: Mapping[str, Forward] = self._towers

    @contextlib.contextmanager
    def syncing(self, on: bool) -> Iterator[None]:
        """See `Parallel`."""
        for tower in self._towers.values():
            cast(FSDPModule, tower).set_requires_gradient_sync(on)
        yield

    def close(self) -> None:
        """Nothing is held that must be let go of first."""


def share_model(model: nn.Module, towers: Mapping[str, nn.Module], how: str, device: str) -> Parallel:
    """`model` shared as `how` says ("ddp" or "fsdp") among the running processes."""
    if world().size == 1:
        return Alone(towers)
    return Sharded(model, towers, device) if how == "fsdp" else Replicated(model, towers)


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """The length of the whole gradient, shards of every process included: (), float32 at least."""
    replicated: list[Tensor] = []
    sharded: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None:
            is_shard = isinstance(parameter.grad, DTensor)
            (sharded if is_shard else replicated).append(local(parameter.grad).flatten())
    squares = [_squared(replicated, parameters[0]), _squared(sharded, parameters[0])]
    if sharded:
        sum_over_processes(squares[1])
    return (squares[0] + squares[1]).sqrt()


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; a tensor that is not sharded itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def assign(target: Tensor, value: Tensor) -> None:
    """Copy a whole `value` into `target`, of which this process may hold a part."""
    if isinstance(target, DTensor):
        parts = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
        target.to_local().copy_(parts.to_local())
    else:
        target.copy_(value)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every process's part of each; all processes call it together."""
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value.detach()
        for name, value in tensors.items()
    }


def _squared(tensors: list[Tensor], like: Tensor) -> Tensor:
    if not tensors:
        return torch.zeros((), device=local(like).device, dtype=torch.float32)
    norms = torch._foreach_norm(tensors)
    return torch.stack([norm.square() for norm in norms]).sum()


def _replicate(tower: nn.Module) -> nn.Module:
    if not any(parameter.requires_grad for parameter in tower.parameters()):
        return tower
    # Buffers are batch-norm statistics, which `finish` takes care of.
    # `broadcast_buffers` was renamed in PyTorch 2.13, which warns of the old name.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {buffers: False}
    wrapped = DistributedDataParallel(tower, gradient_as_bucket_view=True, **options)
    wrapped.register_comm_hook(None, _sum_bucket)
    return wrapped


def _sum_bucket(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[list[Tensor]] = work.get_future()
    return future.then(lambda done: done.value()[0])


def _outside(model: nn.Module, towers: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    inside = {id(parameter) for tower in towers.values() for parameter in tower.parameters()}
    return [value for value in model.parameters() if id(value) not in inside and value.requires_grad]


def _sharded_parts(tower: nn.Module) -> list[FSDPModule]:
    return [part for part in tower.modules() if isinstance(part, FSDPModule)]


def _sum_gradients(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        sum_over_processes(parameter.grad)


def _mean_statistics(model: nn.Module) -> None:
    """The same running statistics everywhere, at every step: a checkpoint does not depend on who writes it."""
    for buffer in model.buffers():
        if buffer.is_floating_point():
            sum_over_processes(buffer).div_(world().size)
