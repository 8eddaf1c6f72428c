"""`diptych demo`: train, measure, classify and search on bundled data, and a page that shows it."""

import dataclasses
import itertools
import json
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.options import Json
from diptych.cli.output import emit, progress, say, table
from diptych.errors import SettingsError, UsageError
from diptych.reports.demo_page import Accuracy, Answer, Found, Picture, Story, duration, page
from diptych.weights.naming import DEFAULT_MODEL
from diptych.wording import percent

if TYPE_CHECKING:
    from diptych.data.example import Example
    from diptych.data.images.transforms import Preprocess
    from diptych.data.sources.opening import Source
    from diptych.evaluation.task_report import Report
    from diptych.models.clip import CLIP
    from diptych.search.stores.protocol import Database
    from diptych.training.settings import Recipe

# The designer whom neither the sample's training part nor diptych-mini has seen.
UNSEEN = {"vendor": ("fluent-3d",)}
SHOWN = 9  # classified pictures on the page
HITS = 6  # pictures a query
# Picked because they work, and the page says so; "bird" and "dessert" were tried and find nothing sensible.
QUERIES = ("fruit", "vehicle", "animal", "musical instrument", "red heart", "flower")
TRIAL_STEPS = 10  # that tell how fast this machine is
BUILT = ("run", "index", "index.html")  # what the demo writes, and may replace


def demo(
    *,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="The folder for the page, the model, the index.")
    ] = Path("demo"),
    minutes: Annotated[float, Parameter(help="The most that training may take.")] = 3.0,
    as_json: Json = False,
) -> None:
    """The whole story on bundled data, without a download: train briefly, evaluate, classify, search, one page."""
    if not 0 < minutes < math.inf:
        raise UsageError(f"--minutes {minutes}: expected more than 0")
    started = time.perf_counter()
    _make_room(out)

    from diptych.data.sources.opening import open_source  # noqa: PLC0415
    from diptych.data.subsets.selection import where  # noqa: PLC0415
    from diptych.pretrained import load  # noqa: PLC0415
    from diptych.search.stores.connect import connect  # noqa: PLC0415
    from diptych.training.engine import train  # noqa: PLC0415
    from diptych.training.recipes import load_recipe  # noqa: PLC0415

    database = connect(
        out / "index"
    )  # first: it says what is not installed before the training takes its time
    test = open_source("sample:test")
    unseen = where(test, UNSEEN)
    say("1/4  trying this machine's speed")
    recipe = _fitted(load_recipe("sample"), 60 * minutes)
    pairs = len(open_source(recipe.data.train))
    say(f"2/4  training from scratch: {recipe.training.total_steps} steps on {pairs:,} pairs")
    training_started = time.perf_counter()
    result = train(recipe, out / "run")
    seconds = time.perf_counter() - training_started

    say("3/4  measuring it on drawings by a designer it has not seen")
    fresh, fresh_preprocess = load(result.checkpoint)
    mini, mini_preprocess = load(DEFAULT_MODEL)
    fresh_report = _measured(fresh, fresh_preprocess, unseen, "trained just now")
    reports = [
        fresh_report,
        _measured(mini, mini_preprocess, unseen, DEFAULT_MODEL),
        _measured(_untrained(recipe), fresh_preprocess, unseen, "untrained"),
    ]
    accuracies = [*map(_accuracy, reports), _chance(fresh_report)]

    say(f"4/4  classifying and searching with {DEFAULT_MODEL}")
    story = Story(
        pairs=pairs,
        seconds=seconds,
        batch_size=recipe.training.batch_size,
        losses=_losses(out / "run"),
        task=f"Which of {len(unseen)} names belongs to a drawing? The {len(unseen)} drawings are by a designer whose "
        "work was in nobody's training data. Nothing was trained on these names as classes.",
        accuracies=accuracies,
        answers=_answers(mini, mini_preprocess, unseen),
        searches=_searches(mini, mini_preprocess, test, database),
        next_steps=_next_steps(out),
    )
    _write(out / "index.html", page(story))
    _tell(story, out, time.perf_counter() - started, as_json, reports)


def _make_room(out: Path) -> None:
    """Clear away an earlier demo; a folder with anything else in it is left alone."""
    if out.exists() and (not out.is_dir() or any(item.name not in BUILT for item in out.iterdir())):
        raise SettingsError(f"{out}: has other files in it; name a new folder with --out")
    for name in ("run", "index"):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


def _fitted(recipe: "Recipe", seconds: float) -> "Recipe":
    """The recipe, with as many of its steps as this machine does in `seconds`, in a precision that it is fast in."""
    from rich.console import Console  # noqa: PLC0415

    from diptych.hardware import has_native_bfloat16  # noqa: PLC0415
    from diptych.training.engine import train  # noqa: PLC0415
    from diptych.training.settings import EvaluationSettings  # noqa: PLC0415

    training = recipe.training
    if not has_native_bfloat16("cpu"):
        training = dataclasses.replace(training, precision="float32")

    def with_steps(steps: int) -> "Recipe":
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


def _untrained(recipe: "Recipe") -> "CLIP":
    import torch  # noqa: PLC0415

    from diptych.models.clip import build_model  # noqa: PLC0415

    torch.manual_seed(recipe.training.seed)
    return build_model(recipe.model.resolve()).eval()


def _measured(model: "CLIP", preprocess: "Preprocess", source: "Source", name: str) -> "Report":
    from diptych.evaluation.zero_shot.classification import evaluate_zero_shot  # noqa: PLC0415

    with progress(name, len(source)) as advance:
        return evaluate_zero_shot(
            model, preprocess, source, model_name=name, label_from="caption", progress=advance
        )


def _accuracy(report: "Report") -> Accuracy:
    scores = report.scores
    return Accuracy(report.model, scores.metrics["top1"], scores.metrics["top5"], scores.confidence["top1"])


def _chance(report: "Report") -> Accuracy:
    return Accuracy("chance", report.scores.chance["top1"], report.scores.chance["top5"])


def _losses(run: Path) -> list[tuple[int, float]]:
    from diptych.training.saving.layout import METRICS  # noqa: PLC0415

    records = map(json.loads, (run / METRICS).read_text("utf-8").splitlines())
    return [(record["step"], record["loss"]) for record in records]


def _answers(model: "CLIP", preprocess: "Preprocess", source: "Source") -> list[Answer]:
    """Pictures chosen at random, among all names of the source."""
    import numpy as np  # noqa: PLC0415

    from diptych.evaluation.zero_shot.class_labels import LabelSet  # noqa: PLC0415
    from diptych.evaluation.zero_shot.own_labels import classify  # noqa: PLC0415

    labels = LabelSet.of(sorted({source[position].captions[0] for position in range(len(source))}))
    chosen = np.random.default_rng(0).choice(len(source), SHOWN, replace=False)
    examples = [source[int(position)] for position in chosen]
    found = classify(model, preprocess, [example.image for example in examples], labels, top=3)
    return [
        Answer(
            picture=_picture(example),
            truth=example.captions[0],
            guesses=[(guess["label"], guess["probability"]) for guess in answer["predictions"]],
        )
        for example, answer in zip(examples, found, strict=True)
    ]


def _searches(model: "CLIP", preprocess: "Preprocess", source: "Source", database: "Database") -> list[Found]:
    from diptych.embed.source_rows import uri_of  # noqa: PLC0415
    from diptych.search.building.build import refresh  # noqa: PLC0415
    from diptych.search.encoder import Encoder  # noqa: PLC0415
    from diptych.search.image_index import Index  # noqa: PLC0415

    encoder = Encoder(model, preprocess, DEFAULT_MODEL)
    with progress("indexing", len(source)) as advance:
        refresh(database, source, encoder, progress=advance)
    index = Index(database)
    examples = {uri_of(source, example): example for example in map(source.__getitem__, range(len(source)))}
    return [
        Found(
            query,
            [
                (_picture(examples[hit.item.uri]), hit.score)
                for hit in index.search(encoder.texts([query])[0], count=HITS)
            ],
        )
        for query in QUERIES
    ]


def _picture(example: "Example") -> Picture:
    data = example.image if isinstance(example.image, bytes) else example.image.read_bytes()
    return Picture(
        data=data,
        media_type="image/webp" if data[8:12] == b"WEBP" else "image/png",
        caption=example.captions[0],
        credit=f"{example.metadata.get('author') or 'unknown author'} ({example.metadata['licence']})",
    )


def _next_steps(out: Path) -> list[tuple[str, str]]:
    return [
        ('diptych classify PICTURES --labels "cat,dog,horse"', "your own pictures, your own classes"),
        (f'diptych search "fish" --index {out / "index"}', "ask the index of this demo something else"),
        ("diptych index PICTURES --index pictures.index", "make your own pictures searchable"),
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


def _write(path: Path, text: str) -> None:
    from diptych.atomic import write_text  # noqa: PLC0415

    write_text(path, text)


def _tell(story: Story, out: Path, seconds: float, as_json: bool, reports: "Sequence[Report]") -> None:
    if as_json:
        emit(
            {
                "page": str(out / "index.html"),
                "model": str(out / "run" / "model"),
                "index": str(out / "index"),
                "seconds": seconds,
                "training_seconds": story.seconds,
                "losses": story.losses,
                "zero_shot": [report.to_json() for report in reports],
            }
        )
        return
    first, last = story.losses[0][1], story.losses[-1][1]
    print(
        f"Trained from scratch in {duration(story.seconds)}: the loss fell from {first:.2f} to {last:.2f}.\n"
    )
    rows = [(row.who, percent(row.top1), percent(row.top5)) for row in story.accuracies]
    table(("zero-shot, unseen designer", "first answer", "among five"), rows, right=(1, 2))
    print(f"\n{DEFAULT_MODEL} on three pictures:")
    for answer in story.answers[:3]:
        print(
            f"  {answer.truth}: " + ", ".join(f"{label} {percent(share)}" for label, share in answer.guesses)
        )
    print(f"\n{DEFAULT_MODEL} searching:")
    for found in story.searches[:3]:
        print(f"  {found.query}: " + ", ".join(picture.caption for picture, _ in found.pictures))
    print(f"\nAll of it with pictures: {out / 'index.html'} ({duration(seconds)} in all)\n\nNext:")
    for command, job in story.next_steps:
        print(f"  {command}\n      {job}")
