"""The demonstration: train briefly on bundled data, measure, classify and search; the story that its page tells."""

import dataclasses
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from diptych.data.example import Example
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source, open_source
from diptych.data.subsets.selection import select_rows
from diptych.embed.source_rows import uri_of
from diptych.errors import SettingsError
from diptych.evaluation.task_report import Report
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot
from diptych.evaluation.zero_shot.own_labels import classify
from diptych.hardware import has_native_bfloat16
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.pretrained import load
from diptych.runs.demo_story import Accuracy, DemoAnswer, DemoImage, DemoSearch, Story
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.search.image_index import Index
from diptych.search.stores.connect import connect
from diptych.search.stores.protocol import Database
from diptych.training.engine import train
from diptych.training.recipes import load_recipe
from diptych.training.saving.layout import METRICS
from diptych.training.settings import EvaluationSettings, Recipe
from diptych.weights.naming import DEFAULT_MODEL

# The designer whose drawings neither the sample's training part nor diptych-mini has seen.
UNSEEN = {"vendor": ("fluent-3d",)}
SHOWN = 9  # classified images on the page
HITS = 6  # images a query
# Picked because they work, and the page says so; "bird" and "dessert" were tried and find nothing sensible.
QUERIES = ("fruit", "vehicle", "animal", "musical instrument", "red heart", "flower")
TRIAL_STEPS = 10  # that tell how fast this machine is
PAGE = "index.html"
BUILT = ("run", "index", PAGE)  # what the demo writes, and may replace

# From what is going on and its number of images to a context with a function that takes the number of images done.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def run_demo(
    out: Path, *, minutes: float, say: Callable[[str], None], progress: Progress
) -> tuple[Story, list[Report]]:
    """Train, measure, classify and search on bundled data, into `out`/run and `out`/index.

    minutes: the most that training may take. say: gets a line a step.

    Returns:
        The story, and the zero-shot reports of the fresh, the bundled and the untrained model.

    Raises:
        SettingsError: `out` has other files in it. MissingExtraError: the index's store is not installed.
    """
    _make_room(out)
    # The index first: it says what is not installed before the training takes its time.
    database = connect(out / "index")
    test = open_source("sample:test")
    unseen = select_rows(test, UNSEEN)
    say("1/4  trying this machine's speed")
    recipe = _fit_recipe(load_recipe("sample"), 60 * minutes)
    pairs = len(open_source(recipe.data.train))
    say(f"2/4  training from scratch: {recipe.training.total_steps} steps on {pairs:,} pairs")
    started = time.perf_counter()
    result = train(recipe, out / "run")
    seconds = time.perf_counter() - started
    say("3/4  measuring it on drawings by a designer it has not seen")
    fresh, fresh_preprocess = load(result.checkpoint)
    mini, mini_preprocess = load(DEFAULT_MODEL)
    reports = [
        _measure(fresh, fresh_preprocess, unseen, "trained just now", progress),
        _measure(mini, mini_preprocess, unseen, DEFAULT_MODEL, progress),
        _measure(_untrained(recipe), fresh_preprocess, unseen, "untrained", progress),
    ]
    say(f"4/4  classifying and searching with {DEFAULT_MODEL}")
    story = Story(
        pairs=pairs,
        seconds=seconds,
        batch_size=recipe.training.batch_size,
        losses=_losses(out / "run"),
        task=f"Which of {len(unseen)} names belongs to a drawing? The {len(unseen)} drawings are by a designer whose "
        "work was in nobody's training data. Nothing was trained on these names as classes.",
        accuracies=[*map(_accuracy, reports), _chance(reports[0])],
        answers=_answers(mini, mini_preprocess, unseen),
        searches=_searches(Encoder(mini, mini_preprocess, DEFAULT_MODEL), test, database, progress),
        next_steps=_next_steps(out),
    )
    return story, reports


def _make_room(out: Path) -> None:
    """Clear away an earlier demo; a folder with anything else in it is left alone."""
    if out.exists() and (not out.is_dir() or any(item.name not in BUILT for item in out.iterdir())):
        raise SettingsError(f"{out}: has other files in it; name a new folder with --out")
    for name in ("run", "index"):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


def _fit_recipe(recipe: Recipe, seconds: float) -> Recipe:
    """Return the recipe with as many steps as this machine does in `seconds`, in a precision that it is fast in."""
    training = recipe.training
    if not has_native_bfloat16("cpu"):
        training = dataclasses.replace(training, precision="float32")

    def with_steps(steps: int) -> Recipe:
        return dataclasses.replace(
            recipe,
            training=dataclasses.replace(training, steps=steps, samples=None),
            schedule=dataclasses.replace(
                recipe.schedule, warmup_steps=min(recipe.schedule.warmup_steps, max(1, steps // 5))
            ),
        )

    # The fastest step is what the machine can do: the first ones warm up, and others may meet another program.
    stamps: list[float] = []

    def stamp(*_: object) -> dict[str, float]:
        stamps.append(time.perf_counter())
        return {}

    trial = dataclasses.replace(with_steps(TRIAL_STEPS), evaluation=EvaluationSettings(every_steps=1))
    with tempfile.TemporaryDirectory() as folder:
        train(trial, Path(folder) / "trial", evaluate=stamp, console=Console(quiet=True))
    pace = min(later - earlier for earlier, later in itertools.pairwise(stamps))
    return with_steps(max(1, min(training.total_steps, int(seconds / pace))))


def _untrained(recipe: Recipe) -> ImageModel:
    torch.manual_seed(recipe.training.seed)
    return build_model(recipe.model.resolve()).eval()


def _measure(
    model: ImageModel, preprocess: Preprocess, source: Source, name: str, progress: Progress
) -> Report:
    with progress(name, len(source)) as advance:
        return evaluate_zero_shot(
            model, preprocess, source, model_name=name, label_from="caption", progress=advance
        )


def _accuracy(report: Report) -> Accuracy:
    scores = report.scores
    return Accuracy(report.model, scores.metrics["top1"], scores.metrics["top5"], scores.confidence["top1"])


def _chance(report: Report) -> Accuracy:
    return Accuracy("chance", report.scores.chance["top1"], report.scores.chance["top5"])


def _losses(run: Path) -> list[tuple[int, float]]:
    records = map(json.loads, (run / METRICS).read_text("utf-8").splitlines())
    return [(record["step"], record["loss"]) for record in records]


def _answers(model: ImageModel, preprocess: Preprocess, source: Source) -> list[DemoAnswer]:
    """Classify images chosen at random among all names of the source."""
    labels = LabelSet.of(sorted({source[position].captions[0] for position in range(len(source))}))
    chosen = np.random.default_rng(0).choice(len(source), SHOWN, replace=False)
    examples = [source[int(position)] for position in chosen]
    found = classify(model, preprocess, [example.image for example in examples], labels, top=3)
    return [
        DemoAnswer(
            image=_image(example),
            truth=example.captions[0],
            guesses=[(guess["label"], guess["probability"]) for guess in answer["predictions"]],
        )
        for example, answer in zip(examples, found, strict=True)
    ]


def _searches(encoder: Encoder, source: Source, database: Database, progress: Progress) -> list[DemoSearch]:
    """Fill the index with a source, and answer the queries from it."""
    with progress("indexing", len(source)) as advance:
        refresh(database, source, encoder, progress=advance)
    index = Index(database)
    examples = {uri_of(source, example): example for example in map(source.__getitem__, range(len(source)))}
    return [
        DemoSearch(
            query,
            [
                (_image(examples[hit.item.uri]), hit.score)
                for hit in index.search(encoder.texts([query])[0], count=HITS)
            ],
        )
        for query in QUERIES
    ]


def _image(example: Example) -> DemoImage:
    data = example.image if isinstance(example.image, bytes) else example.image.read_bytes()
    return DemoImage(
        data=data,
        media_type="image/webp" if data[8:12] == b"WEBP" else "image/png",
        caption=example.captions[0],
        credit=f"{example.metadata.get('author') or 'unknown author'} ({example.metadata['licence']})",
    )


def _next_steps(out: Path) -> list[tuple[str, str]]:
    return [
        ('diptych classify IMAGES --labels "cat,dog,horse"', "your own images, your own classes"),
        (f'diptych search "fish" --index {out / "index"}', "ask the index of this demo something else"),
        ("diptych index IMAGES --index images.index", "make your own images searchable"),
        (
            f"diptych evaluate zero-shot --model {out / 'run'} --data FOLDER",
            "measure the model you just trained",
        ),
        ("diptych train sample --set training.samples=200000 --out runs/longer", "train it for longer"),
        (
            "diptych classify PHOTO --labels-file classes.txt --model ViT-B/32",
            "for photographs (downloads once)",
        ),
    ]
