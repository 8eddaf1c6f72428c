"""What a run writes into its folder, and how it finds its way back from there."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diptych.config import plain
from diptych.data.transforms import Preprocess
from diptych.distributed import wait_for_all, world
from diptych.errors import CheckpointError
from diptych.models.clip import CLIP
from diptych.training.ema import Ema
from diptych.training.parallel import assign, whole
from diptych.training.saving import Saver, Snapshot
from diptych.training.settings import Recipe
from diptych.training.state import checkpoint_folder, newest_whole, optimizer_state, restore_optimizer
from diptych.weights.checkpoint import Description, load_checkpoint, load_state, write_checkpoint

_EMA = "ema."


class RunFiles:
    """The folder of one run."""

    def __init__(self, folder: Path, recipe: Recipe, preprocess: Preprocess) -> None:
        self.folder = folder
        self._recipe = recipe
        self._preprocess = preprocess

    @contextlib.contextmanager
    def saver(self) -> Iterator[Saver | None]:
        """A context in which checkpoints are written behind the run's back; by the first process alone."""
        if not world().leads:
            yield None
            return
        with Saver(self.folder, self._recipe.checkpoint.keep) as saver:
            yield saver

    def save(
        self,
        saver: Saver | None,
        model: CLIP,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None,
        values: Mapping[str, Any],
    ) -> None:
        """Begin to write a checkpoint to resume from; every process calls it. values: JSON, with the `step`."""
        state = optimizer_state(model, optimizer, values)
        tensors = {**state.tensors, **{f"{_EMA}{name}": value for name, value in _average(ema).items()}}
        state = type(state)(whole(tensors), state.values)
        weights = whole(model.state_dict())
        if saver is not None:
            description = self._description(model, values["step"], values["seconds"])
            folder = checkpoint_folder(self.folder, values["step"])
            saver.save(folder, Snapshot(weights=weights, description=description, state=state))

    def restore(
        self,
        model: CLIP,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None,
        say: Callable[[str], None],
    ) -> dict[str, Any] | None:
        """Put the newest whole checkpoint back; returns the values saved with it, None where there is no checkpoint."""
        newest, damaged = newest_whole(self.folder)
        for folder in damaged:
            say(f"{folder}: damaged; falling back to an earlier checkpoint")
        if newest is None:
            if damaged:
                raise CheckpointError(f"{self.folder}: none of its {len(damaged)} checkpoints is whole")
            return None
        saved, _, _ = load_checkpoint(newest)
        _assign_all(model, saved.state_dict())
        tensors, values = load_state(newest)
        moments = {name: value for name, value in tensors.items() if not name.startswith(_EMA)}
        restore_optimizer(model, optimizer, moments)
        if ema is not None:
            ema.load(
                {name.removeprefix(_EMA): value for name, value in tensors.items() if name not in moments}
            )
        return dict(values)

    def finish(self, model: CLIP, ema: Ema | None, step: int, seconds: float) -> Path:
        """Write the result, and its average where there is one; returns the folder of the result."""
        description = self._description(model, step, seconds)
        target = self.folder / "model"
        results = {target: whole(model.state_dict())}
        if ema is not None:
            results[self.folder / "model-ema"] = whole(ema.state())
        if world().leads:
            for folder, weights in results.items():
                write_checkpoint(folder, weights, description)
        wait_for_all()
        return target

    def _description(self, model: CLIP, step: int, seconds: float) -> Description:
        start = self._recipe.model.init
        return Description(
            architecture=plain(model.architecture),
            preprocessing=plain(self._preprocess),
            settings=plain(self._recipe),
            history=({"what": "trained", "from": start, "steps": step, "seconds": round(seconds)},),
        )


def _average(ema: Ema | None) -> Mapping[str, Tensor]:
    return {} if ema is None else ema.state()


def _assign_all(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    for name, target in model.state_dict().items():
        assign(target, saved[name])
