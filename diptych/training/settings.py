"""Everything that a recipe can say, with its unit and its default."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from diptych.config import OneOf
from diptych.data.images.augmentations import Augmentation, RandomCrop
from diptych.data.images.transforms import Preprocess
from diptych.data.text_sampling import TextSampling
from diptych.errors import SettingsError
from diptych.models.architectures import LABELLED, PUBLISHED, Architecture
from diptych.models.image_model import ImageModel
from diptych.pretrained import load
from diptych.training.approaches import APPROACHES
from diptych.training.approaches.approach import Approach, ObjectiveSettings
from diptych.training.approaches.contrastive import ClipSettings
from diptych.training.approaches.task import Task
from diptych.training.encoding.encoders import Encoding
from diptych.training.methods import FinetuneSettings
from diptych.training.optim.optimizer_settings import OPTIMIZERS, AdamWSettings, OptimizerSettings

# What `[objective]` may say, by approach.
OBJECTIVES: dict[str, type[ObjectiveSettings]] = {
    name: approach.settings for name, approach in APPROACHES.items()
}


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model, and what it starts from."""

    # A published name, or a table of sizes. When not given: the architecture of `init`.
    architecture: str | Architecture | None = None
    # "scratch", or a checkpoint whose weights the run starts from.
    init: str = "scratch"
    # A checkpoint that the text tower alone starts from, such as a language model's.
    text_init: str | None = None

    def resolve(self) -> Architecture:
        """Return the sizes of the model."""
        if self.architecture is None:
            return _architecture_of(self.init)
        if isinstance(self.architecture, Architecture):
            return self.architecture
        known = {**PUBLISHED, **LABELLED}
        if self.architecture not in known:
            raise SettingsError(
                f"[model] architecture {self.architecture!r} is not a published name ({', '.join(known)}); "
                "for other sizes write a table [model.architecture]"
            )
        return known[self.architecture]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is trained on, and how often each example of it is seen."""

    # Folders, tables, shards or globs; relative to the working folder.
    train: str | tuple[str, ...] = ()
    # In place of `train`: each source, and how often it is seen in an epoch.
    mixture: dict[str, float] = field(default_factory=dict)
    # The columns of a table, and what divides those of a text table. What is not given is found.
    image_column: str | None = None
    caption_column: str | None = None
    label_column: str | None = None
    delimiter: str | None = None
    # The folder that a table's image paths are relative to. When not given: the table's own.
    image_root: str | None = None
    text: TextSampling = field(default_factory=TextSampling)
    # A metadata field, and how often an example is seen in an epoch by its value there; 1 for other values.
    weight_by: str | None = None
    weights: dict[str, float] = field(default_factory=dict)
    # Metadata fields, and their values whose examples are never seen.
    hold_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Train on shuffled captions: the control that shows what is learned from the pairing.
    permute_captions: bool = False
    # Where the label of an example is; "group" is the group of an emoji's code point.
    label_from: Literal["label", "caption", "group"] = "label"
    # Share of each class, 0..1, that is kept from training: the data "held-out".
    validation: float = 0.0
    # Whether near copies of an image stay on its side of that split; equal images always do.
    near_copies: bool = True
    # A metadata field, or "folder": examples with an equal value stay on one side, in place of near copies.
    group_by: str | None = None
    # 0 shows classes as often as they occur, 1 shows all classes equally often.
    balance: float = 0.0
    # Train on this many examples of each class alone, drawn with the seed.
    labels_per_class: int | None = None
    # Keep decoded images in memory.
    cache: bool = False
    # Threads that decode; 0 decodes in the training thread.
    workers: int = 2
    # Share of unreadable pairs, 0..1, above which the run ends.
    most_bad: float = 0.05

    def __post_init__(self) -> None:
        if bool(self.train) == bool(self.mixture):
            raise SettingsError("[data] needs either train or mixture, and not both")
        if not 0 <= self.most_bad <= 1:
            raise SettingsError(f"[data] most_bad = {self.most_bad}: a share is between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """The learning rate over the run."""

    name: Literal["cosine"] = "cosine"
    # Optimizer steps of linear growth.
    warmup_steps: int = 2_000
    # The last step's share of the peak.
    final_fraction: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long a run is, and how it computes a step."""

    # Pairs of one optimizer step, over all processes.
    batch_size: int
    # The length of the run: optimizer steps, or pairs seen.
    steps: int | None = None
    samples: int | None = None
    # Images of one forward pass; None takes the whole batch at once.
    chunk: int | Literal["auto"] | None = None
    # Texts of one forward pass. When not given: as many as images.
    text_chunk: int | None = None
    # Image and text chunks whose graphs are kept, and not computed again.
    keep: int = 0
    # bfloat16 and float16 are autocast around float32 weights; float16 scales the loss.
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    # Compute the inside of each block again in the backward pass, which saves memory.
    recompute: bool = False
    # Use torch.compile on each block.
    compile: bool = False
    # Share of an image's patches that is left out (FLIP), 0..1.
    patch_dropout: float = 0.0
    # The decay a step of an average of the weights, which is saved beside them.
    ema: float | None = None
    # How several processes share the model.
    distributed: Literal["ddp", "fsdp"] = "ddp"
    # Steps in a row whose loss or gradient is not a number, after which the run stops.
    most_not_finite: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.samples is None):
            raise SettingsError("[training] needs either steps or samples, and not both")
        if self.batch_size < 2 or self.total_steps < 1:
            raise SettingsError("[training] needs a batch_size of at least 2 and at least one step")
        for name, rows in (("chunk", self.chunk), ("text_chunk", self.text_chunk)):
            if isinstance(rows, int) and rows < 2:
                raise SettingsError(f"[training] {name} = {rows}: a chunk has at least 2 rows")

    @property
    def total_steps(self) -> int:
        """Return the optimizer steps of the run; samples that do not fill a batch are left out."""
        return self.steps if self.steps is not None else (self.samples or 0) // self.batch_size


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """When a checkpoint to resume from is written; the last step always writes one."""

    every_steps: int | None = None
    every_minutes: float | None = 10.0
    # The newest checkpoints that are kept: at least 2, so that one is whole while the next is written.
    keep: int = 2

    def __post_init__(self) -> None:
        if self.keep < 2:
            raise SettingsError(
                f"[checkpoint] keep = {self.keep}: at least 2, or a crash can lose the only one"
            )


# What a resolved recipe says of every evaluation, whatever its task: a class stands in the label, all rows are kept.
SAID_OF_EVERY_TASK: dict[str, Any] = {"label_from": "label", "where": {}}


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is measured during a run."""

    # The last step is always measured.
    every_steps: int | None = None
    # TASK_METRIC, as in the log: the best weights by this metric are kept in model-best/.
    best: str | None = None
    # Evaluations in a row without a new best, after which the run ends.
    patience: int | None = None
    # Held-out images with captions: `diptych report` shows what a captioner writes beside them.
    captions: str | None = None
    # A table an evaluation: its `name` (of its columns in the log), its `task`, its `data` (as training data, or
    # "held-out": what [data] validation keeps), and the settings of that task, which `diptych.runs.evaluations` reads.
    tasks: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        resolved = tuple({**task, **SAID_OF_EVERY_TASK, **task} for task in self.tasks)  # its own keys first
        object.__setattr__(self, "tasks", resolved)
        if self.patience is not None and (self.patience < 1 or self.best is None or self.every_steps is None):
            raise SettingsError(
                f"[evaluation] patience = {self.patience}: at least 1, and beside it `best` and `every_steps`"
            )
        names = [task.get("name") for task in self.tasks]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SettingsError(f"[evaluation] two tasks have the name {twice!r}; the log needs one for each")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run."""

    model: ModelSettings
    data: DataSettings
    training: TrainingSettings
    augmentation: Augmentation = field(default_factory=RandomCrop)
    objective: Annotated[ObjectiveSettings, OneOf("approach", OBJECTIVES)] = field(
        default_factory=ClipSettings
    )
    optimizer: Annotated[OptimizerSettings, OneOf("optimizer", OPTIMIZERS)] = field(
        default_factory=AdamWSettings
    )
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    finetune: FinetuneSettings | None = None

    @property
    def approach(self) -> Approach[Any]:
        """Return what `[objective] name` stands for."""
        return APPROACHES[self.objective.name]

    def make_task(self, model: ImageModel, preprocess: Preprocess) -> Task:
        """Return what trains `model` as the recipe says. preprocess: how the model's images are normalised.

        Raises:
            SettingsError: the model does not go with the recipe's approach.
        """
        encoding = Encoding(
            preprocess=preprocess,
            augmentation=self.augmentation,
            precision=self.training.precision,
            patch_dropout=self.training.patch_dropout,
        )
        return self.approach.make_task(model, encoding, self.objective)


def _architecture_of(init: str) -> Architecture:
    if init == "scratch":
        raise SettingsError(
            '[model] needs an architecture, or a model to start from: init = "diptych-mini", or a checkpoint'
        )
    if init in PUBLISHED:
        return PUBLISHED[init]  # known without its hundreds of megabytes
    return load(init, device="cpu")[0].architecture
