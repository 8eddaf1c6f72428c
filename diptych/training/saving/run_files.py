"""What a run writes into its folder, and how it finds its way back from there."""

import contextlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diptych.atomic import write_text
from diptych.config import plain
from diptych.data.images.transforms import Preprocess
from diptych.distributed import sum_over_processes, wait_for_all, world
from diptych.errors import CheckpointError, SettingsError
from diptych.models.image_model import ImageModel
from diptych.training.best import Best
from diptych.training.optim.ema import Ema
from diptych.training.parallel import assign, whole
from diptych.training.saving.layout import (
    AVERAGE,
    BEST,
    METRICS,
    MODEL,
    RECIPE,
    checkpoint_folder,
    checkpoints,
    refuse_other_files,
)
from diptych.training.saving.resuming import refuse_other_settings
from diptych.training.saving.run_state import newest_whole, optimizer_state, restore_optimizer
from diptych.training.saving.saver import Saver, Snapshot
from diptych.training.settings import Recipe
from diptych.weights.checkpoint import (
    Description,
    TrainingState,
    load_checkpoint,
    load_state,
    verify_checkpoint,
    write_checkpoint,
)
from diptych.weights.sharded import Place

_EMA = "ema."
_KEPT = "kept as the best of its run"


class RunFiles:
    """The folder of one run."""

    def __init__(self, folder: Path, recipe: Recipe, preprocess: Preprocess) -> None:
        self.folder = folder
        self._recipe = recipe
        self._preprocess = preprocess
        self._sharded = recipe.training.distributed == "fsdp" and world().size > 1

    @contextlib.contextmanager
    def saver(self) -> Iterator[Saver | None]:
        """Give a context in which checkpoints are written while the run goes on.

        Every process writes its part of a sharded model; else the first one writes, and the others have no saver.
        """
        here, keep = world(), self._recipe.checkpoint.keep
        if self._sharded:
            place = Place(here.rank, here.size, _session())
            with Saver(self.folder, keep, place) as saver:
                yield saver
        elif here.leads:
            with Saver(self.folder, keep) as saver:
                yield saver
        else:
            yield None

    def save(
        self,
        saver: Saver | None,
        model: ImageModel,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None,
        values: Mapping[str, Any],
    ) -> None:
        """Begin to write a checkpoint to resume from. values: JSON, with the `step`."""
        if saver is None:
            return
        state = optimizer_state(model, optimizer, values)
        averages = {} if ema is None else {f"{_EMA}{name}": value for name, value in ema.state().items()}
        snapshot = Snapshot(
            weights=model.state_dict(),
            description=self._description(model, values["step"], values["seconds"]),
            state=TrainingState({**state.tensors, **averages}, state.values),
        )
        saver.save(checkpoint_folder(self.folder, values["step"]), snapshot)

    def save_best(self, saver: Saver | None, model: ImageModel, best: Best, seconds: float) -> None:
        """Begin to write the weights that did best in an evaluation, in place of those that did before."""
        if saver is None:
            return
        trained = self._description(model, best.step, seconds)
        kept = {"what": _KEPT, **plain(best)}
        description = replace(trained, history=(*trained.history, kept))
        saver.save(self.folder / BEST, Snapshot(weights=model.state_dict(), description=description))

    def restore_best(self, saved: Mapping[str, Any] | None, say: Callable[[str], None]) -> Best | None:
        """Return the evaluation that `model-best` is from. saved: the one that the checkpoint notes.

        After a kill it may be a later one than `saved`: of a step that will be done again.
        """
        folder = self.folder / BEST
        try:
            found = verify_checkpoint(folder).history[-1]
            return Best(found["metric"], found["step"], found["value"])
        except CheckpointError as error:
            if saved is not None:
                say(f"the best so far is lost, and the next evaluation is the new one: {error}")
            return None

    def restore(
        self,
        model: ImageModel,
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
        optimizer_tensors = {name: value for name, value in tensors.items() if not name.startswith(_EMA)}
        restore_optimizer(model, optimizer, optimizer_tensors)
        if ema is not None:
            ema.load(
                {
                    name.removeprefix(_EMA): value
                    for name, value in tensors.items()
                    if name not in optimizer_tensors
                }
            )
        return dict(values)

    def finish(self, model: ImageModel, ema: Ema | None, step: int, seconds: float) -> Path:
        """Write the result, and its average where there is one; returns the folder of the result."""
        description = self._description(model, step, seconds)
        target = self.folder / MODEL
        # The last one says that the run is done.
        results = {} if ema is None else {self.folder / AVERAGE: whole(ema.state())}
        results[target] = whole(model.state_dict())
        if world().leads:
            for folder, weights in results.items():
                write_checkpoint(folder, weights, description)
        wait_for_all()
        return target

    def _description(self, model: ImageModel, step: int, seconds: float) -> Description:
        start = self._recipe.model.init
        return Description(
            architecture=plain(model.architecture),
            preprocessing=plain(self._preprocess),
            settings=plain(self._recipe),
            history=({"what": "trained", "from": start, "steps": step, "seconds": round(seconds)},),
        )


def begin_run(run: Path, recipe: Recipe, *, resume: bool) -> None:
    """Write the recipe into the folder of a new run, or see that a run there can go on.

    Raises:
        SettingsError: the folder holds other files, a run that is not to be resumed, or one with other settings.
        CheckpointError: the run is done, and there is nothing to resume from.
    """
    asked = run / RECIPE
    for name in (RECIPE, METRICS):
        # What a start that was killed has left half-written.
        for leftover in run.glob(f".{name}.*.tmp"):
            leftover.unlink()
    if not asked.exists():
        refuse_other_files(run)
        run.mkdir(parents=True, exist_ok=True)
        write_text(asked, json.dumps(plain(recipe), indent=2) + "\n")
        return
    if not resume:
        raise SettingsError(
            f"{run}: holds a run already; go on with --resume, or name another folder with --out"
        )
    refuse_other_settings(asked, json.loads(asked.read_text("utf-8")), recipe)
    if not checkpoints(run) and (run / MODEL).exists():
        raise CheckpointError(f"{run}: the run is done, but its checkpoints are gone; nothing to resume")


def _session() -> str:
    """Return a word for this start of the run, the same in every process."""
    number = torch.tensor([random.SystemRandom().getrandbits(48) if world().leads else 0])
    return f"{int(sum_over_processes(number)):012x}"


def _assign_all(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    for name, target in model.state_dict().items():
        assign(target, saved[name])
