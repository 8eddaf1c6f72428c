"""Measure one model of the experiment on everything.

    python experiments/emoji_shift/measure.py MODEL CORPUS OUT NAME

OUT is the folder of `train.sh`; MODEL is `diptych-mini`, a checkpoint of a CLIP model, or a baseline's folder with
`model.safetensors`. OUT/measured/NAME.json gets every report. The environment's DIPTYCH_DATA has Fashion-MNIST.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from supervised import BASELINES, Classifier
from tasks import SHIFT, Selected, by_concept, by_emoji_group, concepts

import diptych
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source, open_source
from diptych.embed.encode import Encode, Vectors, encode_by
from diptych.evaluation.datasets.benchmark import default_root, open_benchmark
from diptych.evaluation.probes.few_shot import evaluate_few_shot
from diptych.evaluation.probes.linear_probe import evaluate_linear_probe
from diptych.evaluation.probes.probe_data import LabelledFeatures
from diptych.evaluation.retrieval import evaluate_retrieval
from diptych.evaluation.survey import embed_rows, encoded_rows
from diptych.evaluation.task_report import Report
from diptych.evaluation.zero_shot.answers import answers
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import classifier, evaluate_zero_shot, survey_labels
from diptych.evaluation.zero_shot.prompts import TEMPLATES
from diptych.models.image_model import ImageModel

FASHION_TRAINING = (
    10_000  # of the 60,000, the first ones: features of all would take longer than the rest together
)
BATCH = 128

# Words for Fashion-MNIST fixed before any model was measured: the starter corpus has no "pullover" and few trousers.
FASHION = LabelSet(
    tuple("0123456789"),
    (
        ("t-shirt", "top"),
        ("trousers", "pants"),
        ("pullover", "sweater"),
        ("dress",),
        ("coat",),
        ("sandal",),
        ("shirt",),
        ("sneaker",),
        ("bag",),
        ("ankle boot", "boot"),
    ),
)
DIGITS = LabelSet(
    tuple("0123456789"),
    tuple(
        (word, f"digit {digit}")
        for digit, word in enumerate(
            ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
        )
    ),
)


@dataclass(frozen=True)
class Place:
    """Which model is measured, and where the data are."""

    name: str
    corpus: Path
    split: Path


def features(encode: Encode, preprocess: Preprocess, source: Source, labels: LabelSet) -> LabelledFeatures:
    labelled = survey_labels(source, labels)
    rows = encoded_rows(
        encode,
        preprocess,
        source,
        labelled.rows,
        device=torch.device("cpu"),
        batch_size=BATCH,
        progress=None,
    )
    return LabelledFeatures.of(source.name, labelled, rows)


def first(source: Source, count: int) -> Selected:
    """The first `count` rows of a labelled source."""
    left = iter(range(len(source)))
    return Selected(source, lambda example: example.label if next(left) < count else None, source.name)


def probes(
    encode: Encode,
    preprocess: Preprocess,
    place: Place,
    keep: Callable[..., None],
    by_words: dict[str, float],
) -> None:
    """Linear probe and few-shot on three tasks. by_words: what the same model does zero-shot on each."""
    labels = concepts(place.corpus)
    train, shift = place.split / "train.tar", place.corpus / SHIFT
    groups = LabelSet.of(sorted(set(by_emoji_group(shift, labels).labels.values())))
    fashion = {
        part: open_benchmark("fashion_mnist", default_root(), part).source for part in ("train", "test")
    }
    digits = {part: open_benchmark("digits", default_root(), part).source for part in ("train", "test")}
    tasks: dict[str, tuple[Source, Source, LabelSet]] = {
        "emoji groups": (by_emoji_group(train, labels), by_emoji_group(shift, labels), groups),
        "Fashion-MNIST": (first(fashion["train"], FASHION_TRAINING), fashion["test"], FASHION),
        "digits": (digits["train"], digits["test"], DIGITS),
    }
    for task, (to_fit, to_test, classes) in tasks.items():
        fitted = features(encode, preprocess, to_fit, classes)
        tested = features(encode, preprocess, to_test, classes)
        keep(f"linear-probe: {task}", evaluate_linear_probe(fitted, tested, model_name=place.name))
        few = evaluate_few_shot(fitted, tested, model_name=place.name, zero_shot=by_words.get(task))
        keep(f"few-shot: {task}", few)


def words(
    model: ImageModel, preprocess: Preprocess, place: Place, keep: Callable[..., None]
) -> dict[str, float]:
    """Zero-shot and retrieval; returns the top-1 of the tasks that `probes` has too."""

    def zero_shot(source: Source, labels: LabelSet, group_by: str | None = None) -> Report:
        return evaluate_zero_shot(
            model,
            preprocess,
            source,
            model_name=place.name,
            labels=labels,
            templates=TEMPLATES[
                "plain"
            ],  # as in the figures of diptych-mini: the captions here are bare names
            group_by=group_by,
            batch_size=BATCH,
        )

    labels = concepts(place.corpus)
    shift = by_concept(place.corpus / SHIFT, labels)
    keep("zero-shot: emoji names", zero_shot(shift, labels, "vendor"))
    if place.name != "diptych-mini":  # which has seen them
        within = by_concept(place.split / "in-distribution.tar", labels)
        keep("zero-shot: emoji names in distribution", zero_shot(within, labels))
    groups = by_emoji_group(place.corpus / SHIFT, labels)
    tasks = {
        "emoji groups": (groups, LabelSet.of(sorted(set(groups.labels.values())))),
        "Fashion-MNIST": (open_benchmark("fashion_mnist", default_root()).source, FASHION),
        "digits": (open_benchmark("digits", default_root()).source, DIGITS),
    }
    by_words = {}
    for task, (source, classes) in tasks.items():
        report = zero_shot(source, classes)
        keep(f"zero-shot: {task}", report)
        by_words[task] = report.scores.metrics["top1"]
    captions = open_source(place.corpus / "eval-openclipart-retrieval.tar")
    keep(
        "retrieval: Open Clip Art",
        evaluate_retrieval(model, preprocess, captions, model_name=place.name, truncate=True),
    )
    return by_words


def prompts(model: ImageModel, preprocess: Preprocess, corpus: Path) -> dict[str, float]:
    """Top-1 on the unseen designers' emoji by each template alone, and by all of them together."""
    labels = concepts(corpus)
    labelled = survey_labels(by_concept(corpus / SHIFT, labels), labels)
    rows = embed_rows(
        model, preprocess, by_concept(corpus / SHIFT, labels), labelled.rows, batch_size=BATCH, progress=None
    )
    target = labelled.target(rows.positions)
    found = {}
    for name, templates in {
        **{template: (template,) for template in TEMPLATES["drawings"]},
        "ensemble": TEMPLATES["drawings"],
    }.items():
        weights = classifier(model, labels.phrases, templates)
        found[name] = float(np.mean(answers(rows.vectors, weights, target, 1.0).ranks < 1))
    return found


def supervised(folder: Path, classes: int) -> Encode:
    """The features that a baseline's head sees."""
    model = Classifier(BASELINES[folder.name][0], classes)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    tower = model.tower.eval()

    def encode(pixels: Sequence[torch.Tensor]) -> Vectors:
        with torch.inference_mode():
            features: Vectors = tower(torch.stack(list(pixels))).numpy()
        return features

    return encode


def main(model_place: str, corpus: Path, out: Path, name: str) -> None:
    target = out / "measured" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    reports: dict[str, Any] = {}
    started = time.perf_counter()

    def keep(task: str, report: Report) -> None:
        reports[task] = report.to_json()
        shown = {metric: round(value, 4) for metric, value in report.scores.metrics.items()}
        print(f"{name}: {task}: {shown}, {time.perf_counter() - started:.0f} s", flush=True)

    place = Place(name, corpus, out / "split")
    by_words: dict[str, float] = {}
    if (Path(model_place) / "result.json").is_file():
        encode, preprocess = supervised(Path(model_place), len(concepts(corpus).names)), Preprocess(64)
    else:
        model, preprocess = diptych.load(model_place)
        reports["prompts"] = prompts(model, preprocess, corpus)
        print(f"{name}: {reports['prompts']}", flush=True)
        by_words = words(model, preprocess, place, keep)
        encode = encode_by(model, model.image_features)
    probes(encode, preprocess, place, keep, by_words)
    target.write_text(json.dumps(reports))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
