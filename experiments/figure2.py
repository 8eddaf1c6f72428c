"""CLIP's Figure 2, in small: who learns fastest to recognise classes by their words?

    python experiments/figure2.py --out build/figure2 [--corpus DIR] [--workers 2]

Four arms see the same pictures in the same order with the same image tower and budget: a language model of the
captions, a bag of their words predicted, the same bag compared, and CLIP. Each arm's learning rate is chosen on other
test pictures than those that are reported. Without `--corpus` the scenes alone are measured. A job that is done is not
done again. Writes docs/results/figure2.md, .svg and .json (or into `--page`). `--quick` takes seconds, for tests.
"""

import argparse
import hashlib
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from figure2_page import write_page
from jobs import Result, do_all, keep_result, read_result
from torch.utils.flop_counter import FlopCounterMode

from diptych.atomic import write_text
from diptych.data.augmentations import Augmentation, CentreCrop, Drawings
from diptych.data.example import Example
from diptych.data.scene_pictures import CLASSES
from diptych.data.sources import Source, open_source
from diptych.data.text_sampling import TextSampling
from diptych.data.transforms import Preprocess
from diptych.evaluation.labels import LabelSet
from diptych.evaluation.zero_shot import evaluate_zero_shot
from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    Captioner,
    ModifiedResNet,
    TextTransformer,
    WordPredictor,
)
from diptych.models.clip import CLIP, build_model
from diptych.tokenizer import default_tokenizer
from diptych.training.engine import train
from diptych.training.feeding import open_training_data
from diptych.training.recipes import load_recipe
from diptych.training.settings import (
    CheckpointSettings,
    DataSettings,
    EvaluationSettings,
    ModelSettings,
    ObjectiveSettings,
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
    TrainingSettings,
)
from diptych.training.step import training_step
from diptych.training.tasks import TASKS

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
    samples=96_000,
    tuning=24_000,
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


def scenes(size: Size, distractors: int) -> Condition:
    names = tuple(f"{colour} {shape}" for colour, shape in CLASSES)
    phrases = tuple((f"{'an' if name[0] in 'aeiou' else 'a'} {name}",) for name in names)
    # As many scenes as are seen, so that no picture comes twice.
    place = f"scenes:train?count={size.samples}&side={size.resolution}&distractors={distractors}"
    sample = open_source(f"scenes:train?count=2000&side=16&distractors={distractors}")
    texts = [sample[row].captions[0] for row in range(min(2000, 20 * size.batch))]
    test = f"scenes:classes-test?count={size.test}&side={size.resolution}"
    return Condition(
        train=place,
        text=TextSampling(),
        augmentation=CentreCrop(),
        context=CONTEXT["scenes"],
        known=known_ids(texts, [phrase for (phrase,) in phrases], least=1),
        labels=LabelSet(names, phrases),
        tune=open_source(f"{test}&seed=1"),
        test=open_source(test),
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
    tokenizer = default_tokenizer()
    counts = Counter(id_ for text in texts for id_ in set(tokenizer.encode(text)))
    needed = {id_ for text in asked for id_ in tokenizer.encode(text)}
    return tuple(sorted(needed | {id_ for id_, count in counts.items() if count >= least}))


def condition_of(name: str, size: Size, corpus: Path | None, out: Path) -> Condition:
    if name == "emoji and icons":
        assert corpus is not None
        return emoji(corpus, out)
    return scenes(size, 0 if name == "scenes, plain captions" else 3)


def architecture(arm: str, condition: Condition, size: Size) -> Architecture:
    context = condition.context
    text = {
        "language model": Captioner(
            decoder_layers=1, reads="forward", heads=4, context_length=context, known=condition.known
        ),
        "bag of words, predicted": WordPredictor(
            word_loss="softmax", context_length=context, known=condition.known
        ),
        "bag of words, contrastive": BagOfWords(width=size.dim, context_length=context),
        "CLIP": TextTransformer(width=size.dim, layers=3, heads=4, context_length=context),
    }[arm]
    image = ModifiedResNet(resolution=size.resolution, layers=size.layers, width=size.width, stem_stride=2)
    return Architecture(embed_dim=size.dim, image=image, text=text)


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
        objective=ObjectiveSettings(name=ARMS[arm]),  # type: ignore[arg-type]
        optimizer=OptimizerSettings(learning_rate=rate, weight_decay=0.05, clip_norm=1.0),
        # A constant rate after the warm-up: a point of a curve is then what a run of that length would have found.
        schedule=ScheduleSettings(warmup_steps=30, final_fraction=1.0),
        training=TrainingSettings(batch_size=size.batch, samples=samples, seed=seed),
        checkpoint=CheckpointSettings(every_minutes=None),
        evaluation=EvaluationSettings(every_steps=1),
    )


def looked_at(steps: int, points: int) -> list[int]:
    """The steps of a curve's points, each a constant factor after the one before; the last step is the last."""
    first = max(1, steps // 64)
    return sorted({round(first * (steps / first) ** (at / (points - 1))) for at in range(points)})


def curve(recipe: Recipe, condition: Condition, test: Source, points: int, folder: Path) -> Result:
    """Accuracy after each number of pictures, by the mean token and by the whole text where a model predicts texts."""
    due = set(looked_at(recipe.training.total_steps, points))
    found: list[dict[str, float]] = []
    step = 0

    def evaluate(model: CLIP, preprocess: Preprocess) -> dict[str, float]:
        nonlocal step
        step += 1
        if step in due:
            report = evaluate_zero_shot(
                model, preprocess, test, model_name="arm", labels=condition.labels, batch_size=256
            )
            point = {"images": step * recipe.training.batch_size, "top1": report.scores.metrics["top1"]}
            if "top1_whole_text" in report.details:
                point["top1_whole_text"] = report.details["top1_whole_text"]
            found.append(point)
        return {}

    train(recipe, folder, evaluate=evaluate)
    return {"curve": found, "chance": 1 / len(condition.labels.names)}


def flops(recipe: Recipe) -> float:
    """Floating-point operations of a training step, forward and backward, for each picture."""
    torch.manual_seed(0)
    model = build_model(recipe.model.resolve()).train()
    preprocess = Preprocess(model.architecture.image.resolution)
    task = TASKS[recipe.objective.name](model, preprocess, recipe)
    batch = next(open_training_data(recipe, model, preprocess, lambda _: None).batches(0))
    with FlopCounterMode(display=False) as counter:
        training_step(
            task, torch.optim.SGD(model.parameters(), lr=0.0), batch, 0.0, None, group_positives=False
        )
    return counter.get_total_flops() / recipe.training.batch_size


def file_name(*parts: object) -> str:
    """The parts with what no file name should have replaced."""
    return "-".join(re.sub(r"[^\w.]+", "_", str(part)) for part in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("build/figure2"))
    parser.add_argument("--page", type=Path, default=Path(__file__).parents[1] / "docs" / "results")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--workers", type=int, default=2, help="jobs at a time; 0: in this process")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    names = CONDITIONS if given.corpus else CONDITIONS[:2]
    if given.quick:
        names = names[:1] + names[2:]
    experiment = Experiment(size, names, given.corpus, given.out)
    if given.job:
        settings = experiment.settings_of(given.job)
        keep_result(given.out, given.job, settings, experiment.run(given.job))
        return
    arguments = ["--out", str(given.out), *(["--quick"] if given.quick else [])]
    arguments += ["--corpus", str(given.corpus)] if given.corpus else []

    def done(jobs: Mapping[str, Mapping[str, Any]]) -> dict[str, Result]:
        return do_all(
            Path(__file__), given.out, jobs, experiment.run, workers=given.workers, arguments=arguments
        )

    done(experiment.tuning)
    curves = done(experiment.jobs)
    write_page(
        given.page, [{**experiment.jobs[name], **result} for name, result in curves.items()], asdict(size)
    )


class Experiment:
    """Every job with its settings: first those that try learning rates, then those that are reported."""

    def __init__(self, size: Size, conditions: Sequence[str], corpus: Path | None, out: Path) -> None:
        self._size, self._corpus, self._out = size, corpus, out
        self._conditions = tuple(conditions)
        self._read: dict[str, Condition] = {}
        self.tuning = {
            file_name("tune", condition, arm, rate): self._settings(condition, arm, rate, 1000, size.tuning)
            for condition in conditions
            for arm in ARMS
            for rate in size.rates
            if len(size.rates) > 1
        }

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """Those that are reported, at the rates that the others chose."""
        return {
            file_name("run", condition, arm, seed): self._settings(
                condition, arm, self._best_rate(condition, arm), seed, self._size.samples
            )
            for condition in self._conditions
            for arm in ARMS
            for seed in self._size.seeds
        }

    def settings_of(self, name: str) -> dict[str, Any]:
        return self.tuning[name] if name in self.tuning else self.jobs[name]

    def run(self, name: str) -> Result:
        settings = self.settings_of(name)
        size, where = self._size, settings["condition"]
        if where not in self._read:
            self._read[where] = condition_of(where, size, self._corpus, self._out)
        condition = self._read[where]
        arm = settings["arm"]
        recipe = recipe_of(
            arm, condition, size, samples=settings["samples"], rate=settings["rate"], seed=settings["seed"]
        )
        tuned = name in self.tuning
        folder = self._out / "runs" / name
        remove(folder)
        points = 2 if tuned else size.points
        result = curve(recipe, condition, condition.tune if tuned else condition.test, points, folder)
        remove(folder)
        return result if tuned else {**result, "flops": flops(recipe), "vocabulary": len(condition.known)}

    def _settings(self, condition: str, arm: str, rate: float, seed: int, samples: int) -> dict[str, Any]:
        size = {name: value for name, value in asdict(self._size).items() if name not in ("seeds", "rates")}
        return {
            "condition": condition,
            "arm": arm,
            "rate": rate,
            "seed": seed,
            "samples": samples,
            "size": size,
        }

    def _best_rate(self, condition: str, arm: str) -> float:
        if not self.tuning:
            return self._size.rates[0]
        found = {}
        for rate in self._size.rates:
            name = file_name("tune", condition, arm, rate)
            result = read_result(self._out, name, self.tuning[name])
            found[rate] = -math.inf if result is None else result["curve"][-1]["top1"]
        return max(found, key=found.__getitem__)


def remove(folder: Path) -> None:
    """What a job that was stopped, or is done, left of its run."""
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
