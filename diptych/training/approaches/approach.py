"""An approach: its settings, its task, and the facts about it that the rest of the package asks for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from diptych.errors import SettingsError
from diptych.models.architectures import Architecture
from diptych.models.image_model import ImageModel
from diptych.training.approaches.task import Task
from diptych.training.encoding.encoders import Encoding
from diptych.training.positives import Positives

S = TypeVar("S", bound="ObjectiveSettings")


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """The settings that every approach has; each approach adds its own."""

    # The key of an approach in `APPROACHES`.
    name: str
    # Pairs that are right for each other: a pair alone ("pair"), also those with the same first caption, with the same
    # image (the same file or equal bytes), or with either ("caption-or-image").
    positives: Positives = "pair"


@dataclass(frozen=True, kw_only=True)
class TaughtSettings(ObjectiveSettings):
    """The settings of an approach that learns from a trained model."""

    # A model, as `diptych.load` takes it.
    teacher: str | None = None


@dataclass(frozen=True, kw_only=True)
class Approach(Generic[S]):
    """One approach.

    settings: what `[objective]` may say.
    task: makes the task from the model, how its batches are encoded, and the settings.
    evaluations: the tasks of `diptych evaluate` that suit the trained model, the best first.
    right: what the accuracy of a batch counts as right; None where nothing is counted.
    has_negatives: whether the other rows of a batch are wrong answers.
    reads_texts: whether captions are read, as `[data] text` samples them.
    needs_captions: whether an example without a caption or label cannot be used.
    trains_classifier: whether it trains the classifier of a model that is fine-tuned on labels.
    drops_patches: whether `[training] patch_dropout` may leave patches out.
    chance_loss: the loss of guessing, in nats, by the rows of the global batch; None where more decides it.
    first_loss: the loss of a model with first weights, in nats, where `chance_loss` does not give it: by the settings,
        the rows of the global batch and the architecture. None where a teacher or the start decides it.
    complete: adds to the architecture what the approach asks of a new model.
    """

    settings: type[S]
    task: Callable[[ImageModel, Encoding, S], Task]
    evaluations: tuple[str, ...]
    right: str | None
    has_negatives: bool
    reads_texts: bool = True
    needs_captions: bool = True
    trains_classifier: bool = False
    drops_patches: bool = True
    chance_loss: Callable[[int], float] | None = None
    first_loss: Callable[[S, int, Architecture], float | None] | None = None
    complete: Callable[[Architecture], Architecture] = lambda architecture: architecture

    def make_task(self, model: ImageModel, encoding: Encoding, settings: Any) -> Task:
        """Return the task that trains `model`.

        Raises:
            SettingsError: the model or the settings do not go with the approach.
        """
        if encoding.patch_dropout and not self.drops_patches:
            raise SettingsError(f"[training] patch_dropout: not for {settings.name}; set it to 0")
        return self.task(model, encoding, settings)

    def guessing_loss(self, settings: Any, batch_size: int, architecture: Architecture) -> float | None:
        """Return the expected loss, in nats, of a model that cannot tell anything apart: about where a run starts.

        None where a teacher or the start decides it, and for a text side that the approach cannot train.
        Similarities are taken as equal, and where the loss depends on their value, as 0.
        """
        if self.first_loss is not None:
            return self.first_loss(settings, batch_size, architecture)
        return None if self.chance_loss is None else self.chance_loss(batch_size)
