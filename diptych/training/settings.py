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
from diptych.training.approaches.encoders import Encoding
from diptych.training.approaches.task import Task
from diptych.training.methods import FinetuneMethod
from diptych.training.optim.optimizer_settings import OPTIMIZERS, AdamWSettings, OptimizerSettings

# What `[objective]` may say, by approach.
OBJECTIVES: dict[str, type[ObjectiveSettings]] = {
    name: approach.settings for name, approach in APPROACHES.items()
}


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    architecture: str | Architecture | None = None  # a published name, or a table of sizes; that of `init`
    init: str = "scratch"  # or a checkpoint, whose weights the run starts from
    text_init: str | None = (
        None  # a checkpoint, from which the text tower alone starts: such as a language model's
    )

    def resolve(self) -> Architecture:
        """The sizes themselves."""
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
    train: str | tuple[str, ...] = ()  # folders, tables, shards, globs; relative to the working folder
    mixture: dict[str, float] = field(default_factory=dict)  # in place of `train`: place = times an epoch
    image_column: str | None = None  # of a table; found when not given
    caption_column: str | None = None  # likewise
    delimiter: str | None = None  # between the columns of a text table; found when not given
    image_root: str | None = (
        None  # folder that image paths of a table are relative to; the table's when not given
    )
    text: TextSampling = field(default_factory=TextSampling)
    weight_by: str | None = None  # the metadata field that `weights` is about
    weights: dict[str, float] = field(default_factory=dict)  # times an epoch; 1 for what is not named
    hold_out: dict[str, tuple[str, ...]] = field(default_factory=dict)  # metadata field = values never seen
    permute_captions: bool = (
        False  # train on wrong pairs: the control that shows what is learned from the pairing
    )
    # Where a class stands, for those who learn from labels; a group is that of an emoji's code point.
    label_from: Literal["label", "caption", "group"] = "label"
    label_column: str | None = None  # of a table; found when not given
    validation: float = 0.0  # share of each class, 0..1, that is kept from training: the data "held-out"
    near_copies: bool = (
        True  # whether near copies of an image stay on its side of that; equal images always do
    )
    group_by: str | None = (
        None  # the metadata field, or "folder", whose equal values do, in place of near copies
    )
    balance: float = 0.0  # of classes: 0 shows them as often as they are, 1 all equally often
    labels_per_class: int | None = None  # so many examples of each class alone, drawn with the seed
    cache: bool = False  # keep decoded pictures in memory
    workers: int = 2  # threads that decode; 0: in the training thread
    most_bad: float = 0.05  # share of unreadable pairs, 0..1, that ends the run

    def __post_init__(self) -> None:
        if bool(self.train) == bool(self.mixture):
            raise SettingsError("[data] needs either train or mixture, and not both")
        if not 0 <= self.most_bad <= 1:
            raise SettingsError(f"[data] most_bad = {self.most_bad}: a share is between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    name: Literal["cosine"] = "cosine"
    warmup_steps: int = 2_000  # optimizer steps of linear growth
    final_fraction: float = 0.0  # of the peak, at the last step


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    batch_size: int  # pairs of one optimizer step, over all processes
    steps: int | None = None  # optimizer steps; give this or `samples`
    samples: int | None = None  # pairs seen in the whole run
    chunk: int | Literal["auto"] | None = None  # images of one forward pass; none: the whole batch at once
    text_chunk: int | None = None  # texts of one forward pass; as many as images when not given
    keep: int = 0  # image and text chunks whose graphs are kept, and not computed again
    # bfloat16 and float16: autocast around float32 weights; float16 with loss scaling
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    recompute: bool = False  # compute the inside of each block again in the backward pass: less memory
    compile: bool = False  # torch.compile of each block
    patch_dropout: float = 0.0  # share of an image's patches that are left out (FLIP), 0..1
    ema: float | None = None  # decay a step of an average of the weights, saved beside them
    distributed: Literal["ddp", "fsdp"] = "ddp"  # how several processes share the model
    most_not_finite: int = 5  # steps in a row whose loss or gradient is not a number before the run stops
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
        """Optimizer steps of the run; samples that fill no batch are left out."""
        return self.steps if self.steps is not None else (self.samples or 0) // self.batch_size


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    every_steps: int | None = None  # a checkpoint to resume from; the last step always makes one
    every_minutes: float | None = 10.0  # likewise, by the clock
    keep: int = 2  # the newest ones; at least 2, so that one is whole while the next is written

    def __post_init__(self) -> None:
        if self.keep < 2:
            raise SettingsError(
                f"[checkpoint] keep = {self.keep}: at least 2, or a crash can lose the only one"
            )


# What a resolved recipe says of every evaluation, whatever its task: a class stands in the label, all rows are kept.
SAID_OF_EVERY_TASK: dict[str, Any] = {"label_from": "label", "where": {}}


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    every_steps: int | None = None  # besides the last step
    best: str | None = None  # TASK_METRIC, as in the log, by which the best weights are kept in model-best/
    patience: int | None = None  # evaluations in a row without a new best after which the run ends
    # Held-out pictures with captions: beside them, `diptych report` shows what a captioner writes.
    captions: str | None = None
    # A table an evaluation: its `name` (of its columns in the log), its `task`, its `data` (as training data, or
    # "held-out": what [data] validation keeps), and the settings of that task, which `diptych.runs.evaluations` reads.
    tasks: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        resolved = tuple({**SAID_OF_EVERY_TASK, **task} for task in self.tasks)
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
class FinetuneSettings:
    """How a trained model goes on (docs/finetuning.md)."""

    method: FinetuneMethod
    # Where the classifier begins: as the words of the classes say, as a logistic regression on the training part's
    # features, or at zero. When not given: probe for head, lp-ft and several labels, zero-shot for all others.
    head: Literal["zero-shot", "probe", "zero"] | None = None
    # Share of the fine-tuned weights in the result, the others being those of the start, 0..1; or that which is best on
    # the mean of the held-out part and the mean of the other tasks. 0.5 for wise-ft and 1 for all others without it.
    alpha: float | Literal["best"] | None = None
    alphas: tuple[float, ...] = tuple(number / 5 for number in range(6))  # measured after wise-ft
    # Class = its names in texts; else its label.
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    templates: tuple[str, ...] = ("{}",)  # of texts about a class
    several: bool = False  # an image may be of any number of classes
    batch_norms: Literal["fixed", "trained"] = "fixed"  # whether they use their running averages in training
    rank: int = 8  # of lora
    scale: float = 2.0  # of lora's updates
    adapts: tuple[Literal["image", "text"], ...] = ("image",)  # towers that lora adapts
    most_lost: float = 0.2  # share of a task's accuracy above chance whose loss raises the alarm, 0..1

    def __post_init__(self) -> None:
        for alpha in (*self.alphas, *([self.alpha] if isinstance(self.alpha, float) else [])):
            if not 0 <= alpha <= 1:
                raise SettingsError(f"[finetune] alpha = {alpha}: a share of the fine-tuned weights, 0..1")
        if self.rank < 1:
            raise SettingsError(f"[finetune] rank = {self.rank}: at least 1")
        if not self.templates or not all("{}" in template for template in self.templates):
            raise SettingsError(
                f"[finetune] templates = {list(self.templates)}: at least one, each with {{}} where the name goes"
            )
        if self.several and (self.head == "zero-shot" or self.method in ("flyp", "lit", "contrastive")):
            raise SettingsError(
                f"[finetune] several labels an image: not with method {self.method!r} and head {self.head!r}; words "
                "say which class is nearest, not whether each is there. Use full, lp-ft, wise-ft, head or lora, with "
                "the head probe or zero"
            )

    @property
    def begins(self) -> Literal["zero-shot", "probe", "zero"]:
        """Where the classifier begins."""
        if self.head is not None:
            return self.head
        return "probe" if self.method in ("head", "lp-ft") or self.several else "zero-shot"

    @property
    def share(self) -> float | Literal["best"]:
        """The alpha of the result."""
        if self.alpha is not None:
            return self.alpha
        return 0.5 if self.method == "wise-ft" else 1.0


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
        """What `[objective] name` stands for."""
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
