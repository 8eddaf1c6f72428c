"""Evaluations while a run goes on: when, of which weights, and which was the best."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch.distributed.tensor import DTensor

from diptych.config import nearest
from diptych.data.images.transforms import Preprocess
from diptych.distributed import sum_over_processes, world
from diptych.errors import SettingsError
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.training.best import Best
from diptych.training.optim.ema import Ema
from diptych.training.parallel import whole
from diptych.training.settings import EvaluationSettings

Evaluate = Callable[[ImageModel, Preprocess], Mapping[str, float]]


class Evaluation:
    """What is measured in a run of `total` steps, and the best so far.

    evaluate: gets a model in evaluation mode; all processes call it together.
    Raises SettingsError where there is to be a best of nothing.
    """

    def __init__(self, settings: EvaluationSettings, total: int, evaluate: Evaluate | None) -> None:
        if settings.best is not None and evaluate is None:
            raise SettingsError(
                f"[evaluation] best = {settings.best!r}: nothing is evaluated; add [[evaluation.tasks]]"
            )
        self.best: Best | None = None
        self._settings = settings
        self._total = total
        self._evaluate = evaluate

    def is_due(self, step: int) -> bool:
        """Return whether to measure after `step` steps; always after the last one."""
        every = self._settings.every_steps
        asked = step == self._total or (every is not None and step % every == 0)
        return asked and self._evaluate is not None

    def is_exhausted(self, step: int) -> bool:
        """Return whether the best so far is `patience` evaluations old: by the steps alone, so that a resume agrees."""
        patience, every = self._settings.patience, self._settings.every_steps
        if patience is None or every is None or self.best is None:
            return False
        return step // every - self.best.step // every >= patience

    def measure(self, model: ImageModel, preprocess: Preprocess) -> dict[str, float]:
        """Return what the log gets."""
        assert self._evaluate is not None
        return dict(self._evaluate(model, preprocess))

    def new_best(self, metrics: Mapping[str, float], step: int) -> Best | None:
        """Return the best so far, if it is in these metrics; the same in every process.

        Raises SettingsError where the recipe's metric is not among them.
        """
        name = self._settings.best
        if name is None:
            return None
        if name not in metrics:
            raise SettingsError(f"[evaluation] best = {name!r} was not measured; {nearest(name, metrics)}")
        # That of the first process: others may round another way, and all must agree on whether to save.
        value = torch.tensor(metrics[name] if world().leads else 0.0, dtype=torch.float64)
        found = Best(name, step, sum_over_processes(value).item())
        if not found.beats(self.best):
            return None
        self.best = found
        return found


@contextlib.contextmanager
def to_evaluate(model: ImageModel, ema: Ema | None) -> Iterator[ImageModel]:
    """Give a context with the model in evaluation mode, and with its averaged weights where it has them.

    Afterwards the model is as it was. Where it is cut into shards, each process gets a whole copy, in the memory of
    its weights: all processes must go through shards together, and in an evaluation each has images of its own.
    """
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        weights = whole(model.state_dict() if ema is None else ema.state())
        with torch.device("meta"):
            copy = build_model(model.architecture)
        copy.load_state_dict(weights, assign=True)
        yield copy.eval()
        return
    model.eval()
    try:
        with contextlib.nullcontext() if ema is None else ema.swapped(model):
            yield model
    finally:
        model.train()
