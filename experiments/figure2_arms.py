"""The arms and the data of `figure2.py`: what each sees, and the recipe that it trains with."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from packed_scenes import packed

from diptych.atomic import write_text
from diptych.data.example import Example
from diptych.data.images.augmentations import Augmentation, CentreCrop, Drawings
from diptych.data.scenes.scene_images import CLASSES
from diptych.data.sources.opening import Source, open_source
from diptych.data.text_sampling import TextSampling
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    Captioner,
    ModifiedResNet,
    TextTransformer,
    WordPredictor,
)
from diptych.tokenizer.occurrence import ids_in
from diptych.training.optim.optimizer_settings import AdamWSettings
from diptych.training.recipes import load_recipe
from diptych.training.settings import (
    OBJECTIVES,
    CheckpointSettings,
    DataSettings,
    EvaluationSettings,
    ModelSettings,
    Recipe,
    ScheduleSettings,
    TrainingSettings,
)

ARMS = {
    "language model": "captioning",
    "bag of words, predicted": "word-prediction",
    "bag of words, contrastive": "clip",
    "CLIP": "clip",
}
CONDITIONS = ("scenes, plain captions", "scenes, three distracting sentences", "emoji and icons")
RATES = (5e-4, 1e-3, 2e-3)  # tried for each arm and condition
SEEDS = (0, 1, 2)
CONTEXT = {"scenes": 56, "emoji": 24}
CONCEPTS = 128  # emoji that are told apart
RARE = 5  # ids that occur less often in the captions are one word to the arms that predict


@dataclass(frozen=True)
class Size:
    """How much is done. samples: pictures that a run sees; tuning: that a run sees which tries a learning rate."""

    samples: int
    tuning: int
    points: int  # of a curve
    batch: int
    resolution: int
    layers: tuple[int, int, int, int]
    width: int
    dim: int  # of every text side and of the space where towers meet
    test: int  # scenes that are classified
    seeds: tuple[int, ...]
    rates: tuple[float, ...]


FULL = Size(
    samples=40_000,
    tuning=12_000,
    points=12,
    batch=128,
    resolution=32,
    layers=(1, 1, 1, 1),
    width=16,
    dim=128,
    test=960,
    seeds=SEEDS,
    rates=RATES,
)
QUICK = Size(
    samples=48,
    tuning=16,
    points=3,
    batch=16,
    resolution=32,
    layers=(1, 1, 1, 1),
    width=4,
    dim=16,
    test=48,
    seeds=(0, 1),
    rates=(1e-3,),
)


class Relabelled:
    """Rows of a source under labels of the experiment's own. label: None leaves a row out."""

    def __init__(self, source: Source, labels: Mapping[int, str]) -> None:
        self._source, self._rows, self._labels = source, list(labels), labels
        self.name, self.fingerprint = source.name, source.fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Example:
        row = self._rows[position]
        return replace(self._source[row], label=self._labels[row])

    def describe(self) -> str:
        return f"{self.name}: {len(self):,} rows"


@dataclass(frozen=True)
class Condition:
    """Where pictures and words come from, and what is asked. known: ids that the predicting arms have."""

    train: str | tuple[str, ...]
    text: TextSampling
    augmentation: Augmentation
    context: int
    known: tuple[int, ...]
    labels: LabelSet
    tune: Source
    test: Source
    weights: Mapping[str, float] = field(default_factory=dict)  # of a source, times an epoch


def scenes(size: Size, distractors: int, out: Path) -> Condition:
    """out: the folder that keeps the scenes."""
    names = tuple(f"{colour} {shape}" for colour, shape in CLASSES)
    phrases = tuple((f"{'an' if name[0] in 'aeiou' else 'a'} {name}",) for name in names)
    # As many scenes as are seen, so that no picture comes twice.
    place = f"scenes:train?count={size.samples}&side={size.resolution}&distractors={distractors}"
    sample = open_source(f"scenes:train?count=2000&side=16&distractors={distractors}")
    texts = [sample[row].captions[0] for row in range(min(2000, 20 * size.batch))]
    test = f"scenes:classes-test?count={size.test}&side={size.resolution}"
    return Condition(
        train=packed(place, out),
        text=TextSampling(),
        augmentation=CentreCrop(),
        context=CONTEXT["scenes"],
        known=known_ids(texts, [phrase for (phrase,) in phrases], least=1),
        labels=LabelSet(names, phrases),
        tune=open_source(packed(f"{test}&seed=1", out)),
        test=open_source(packed(test, out)),
    )


def emoji(corpus: Path, out: Path) -> Condition:
    """The starter corpus, and emoji by designers who are not in it: one to choose by, two to report.

    out: the folder that keeps which ids the captions have, for reading all of them takes a while.
    """
    train = tuple(str(path) for path in sorted(corpus.glob("train-*.tar")))
    shift = open_source(corpus / "eval-emoji-vendor-shift.tar")
    rows = [shift[row] for row in range(len(shift))]
    names = {str(example.group): example.captions[0] for example in rows}
    codes = sorted(names, key=lambda code: hashlib.blake2b(code.encode()).digest())[:CONCEPTS]
    labels = LabelSet(tuple(codes), tuple((names[code],) for code in codes))

    def drawn_by(*vendors: str) -> Relabelled:
        chosen = set(codes)
        return Relabelled(
            shift,
            {
                row: str(example.group)
                for row, example in enumerate(rows)
                if str(example.group) in chosen and example.metadata["vendor"] in vendors
            },
        )

    kept = out / "emoji-vocabulary.json"
    if not kept.exists():
        source = open_source(train)
        examples = map(source.__getitem__, range(len(source)))
        texts = [" ".join((*example.captions, *example.tags)) for example in examples]
        out.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(known_ids(texts, [names[code] for code in codes], least=RARE)))
    return Condition(
        train=train,
        text=TextSampling(caption=0.8, caption_and_tags=0.12),
        augmentation=Drawings(rotation=12.0, shear=5.0, stretch=0.08),
        context=CONTEXT["emoji"],
        known=tuple(json.loads(kept.read_text("utf-8"))),
        labels=labels,
        tune=drawn_by("fluent-hc"),
        test=drawn_by("fluent-3d", "fluent-flat"),
        weights=load_recipe("corpus").data.weights,
    )


def known_ids(texts: Sequence[str], asked: Sequence[str], *, least: int) -> tuple[int, ...]:
    """Ids that occur often enough in the captions, and all of the classes' names."""
    return tuple(sorted({*ids_in(texts, least).known, *ids_in(asked).known}))


def condition_of(name: str, size: Size, corpus: Path | None, out: Path) -> Condition:
    if name == "emoji and icons":
        assert corpus is not None
        return emoji(corpus, out)
    return scenes(size, 0 if name == "scenes, plain captions" else 3, out)


def architecture(arm: str, condition: Condition, size: Size) -> Architecture:
    context = condition.context
    towers: dict[str, BagOfWords | Captioner | TextTransformer | WordPredictor] = {
        "language model": Captioner(
            decoder_layers=1, reads="forward", heads=4, context_length=context, known=condition.known
        ),
        "bag of words, predicted": WordPredictor(
            word_loss="softmax", context_length=context, known=condition.known
        ),
        "bag of words, contrastive": BagOfWords(width=size.dim, context_length=context),
        "CLIP": TextTransformer(width=size.dim, layers=3, heads=4, context_length=context),
    }
    image = ModifiedResNet(resolution=size.resolution, layers=size.layers, width=size.width, stem_stride=2)
    return Architecture(embed_dim=size.dim, image=image, text=towers[arm])


def recipe_of(arm: str, condition: Condition, size: Size, *, samples: int, rate: float, seed: int) -> Recipe:
    return Recipe(
        model=ModelSettings(architecture=architecture(arm, condition, size)),
        data=DataSettings(
            train=condition.train,
            text=condition.text,
            weight_by="source" if condition.weights else None,
            weights=dict(condition.weights),
            cache=isinstance(condition.train, tuple),  # scenes are seen once
            workers=0,
        ),
        augmentation=condition.augmentation,
        objective=OBJECTIVES[ARMS[arm]](name=ARMS[arm]),
        optimizer=AdamWSettings(learning_rate=rate, weight_decay=0.05, clip_norm=1.0),
        # A constant rate after the warm-up: a point of a curve is then what a run of that length would have found.
        schedule=ScheduleSettings(warmup_steps=30, final_fraction=1.0),
        training=TrainingSettings(batch_size=size.batch, samples=samples, seed=seed),
        checkpoint=CheckpointSettings(every_minutes=None),
        evaluation=EvaluationSettings(every_steps=1),
    )
