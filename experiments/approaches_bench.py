"""What the rows of `approaches_rows.py` are made of: runs from recipes, and measurements of what they made."""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from packed_scenes import packed
from sound_retrieval import evaluate_sound_retrieval

import diptych
from diptych.atomic import write_text
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source, open_source
from diptych.embed.encode import encode_by
from diptych.evaluation.generated_captions import write_captions
from diptych.evaluation.probes.linear_probe import evaluate_linear_probe
from diptych.evaluation.probes.probe_data import LabelledFeatures
from diptych.evaluation.retrieval import evaluate_retrieval
from diptych.evaluation.survey import encoded_rows
from diptych.evaluation.word_order import evaluate_word_order
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot, survey_labels
from diptych.models.architectures import LabelHead
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.training.engine import train
from diptych.training.recipes import load_recipe

SIDE = 32  # pixels, of every picture and model here
RESNET = f"model.architecture.image={{resolution={SIDE}, layers=[1, 1, 1, 1], width=16, stem_stride=2}}"
QUICK_RESNET = RESNET.replace("width=16", "width=4")
PLAIN = "augmentation={name='none'}"  # scenes vary enough by themselves

Model = tuple[ImageModel, Preprocess]


class Bench:
    """One seed of one row.

    folder: of its runs, which `clear` removes. kept: where finished models stay for the rows that train the same one.
    quick: as small as it runs at all. borrowed: core-seconds of the training that was found there instead of done.
    """

    def __init__(self, folder: Path, kept: Path, seed: int, *, quick: bool) -> None:
        self.folder, self.kept, self.seed, self.quick = folder, kept, seed, quick
        self.borrowed = 0.0
        self.clear()

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def scenes(self, part: str, **options: int) -> str:
        """The place of a part of the scenes, 32 pixels a side; a few of them where it is quick."""
        asked = {"side": SIDE, **options}
        if self.quick:
            asked["count"] = 240 if part == "classes-train" else 96  # five of each class
        name = f"scenes:{part}?" + "&".join(f"{name}={value}" for name, value in asked.items())
        return packed(name, self.kept)

    def train(self, name: str, recipe: str, *settings: str, samples: int, data: str | None = None) -> Path:
        """The model that a recipe makes with the seed of this job, as a folder. samples: pictures that it sees."""
        place = data if data is not None else self.scenes("train", count=samples)
        asked = [
            f"data.train={place!r}",
            f"training.samples={64 if self.quick else samples}",
            f"training.seed={self.seed}",
            "training.precision='float32'",
            "checkpoint.every_minutes=60.0",
            "evaluation={}",
            "data.workers=0",
            *settings,
        ]
        if self.quick:
            asked += ["training.batch_size=16", "schedule.warmup_steps=1"]
            asked = [setting.replace(RESNET, QUICK_RESNET) for setting in asked]
        same = hashlib.blake2b(json.dumps([recipe, *asked]).encode(), digest_size=8).hexdigest()
        kept = self.kept / same
        took = kept / "core_seconds.json"
        if took.exists():
            self.borrowed += json.loads(took.read_text("utf-8"))
            return kept / "model"
        started = time.process_time()
        out = self.folder / name
        train(load_recipe(recipe, tuple(asked)), out)
        shutil.copytree(out / "model", kept / "model", dirs_exist_ok=True)
        write_text(took, json.dumps(time.process_time() - started))
        return kept / "model"

    def load(self, place: Path) -> Model:
        return diptych.load(str(place))

    def untrained(self, like: Path) -> Model:
        """The same model before its first step, from another seed."""
        model, preprocess = self.load(like)
        torch.manual_seed(100 + self.seed)
        return build_model(model.architecture).eval(), preprocess

    def probe(self, model: Model, labels: str = "classes-train") -> float:
        """Top-1 of a linear probe on image features, fitted on labelled scenes; its sweep is the library's own."""
        fitted = self._features(model, open_source(self.scenes(labels, count=2400)))
        tested = self._features(model, open_source(self.scenes("classes-test", count=1200)))
        return evaluate_linear_probe(fitted, tested, model_name="row").scores.metrics["top1"]

    def zero_shot(self, model: Model, group: str | None = None) -> float:
        """Top-1 among the 48 classes; of those whose `combination` is `group` alone, where one is given."""
        source = open_source(self.scenes("classes-test", count=1200))
        report = evaluate_zero_shot(
            *model, source, model_name="row", labels=named(source), group_by="combination", batch_size=256
        )
        scores = report.scores if group is None else report.groups[group]
        return scores.metrics["top1"]

    def labelled_top1(self, model: Model) -> float:
        """Top-1 of a model that learned labels, by its own head, on scenes of its classes."""
        network, preprocess = model
        head = network.architecture.text
        assert isinstance(head, LabelHead)
        classes = head.classes
        source = open_source(self.scenes("classes-test", count=1200))
        rows = [row for row in (source[number] for number in range(len(source))) if row.label in classes]
        right = 0
        with torch.inference_mode():
            for start in range(0, len(rows), 128):
                part = rows[start : start + 128]
                features = network.image_features(torch.stack([preprocess(row.image) for row in part]))
                best = network.text(features).argmax(dim=1).tolist()
                right += sum(classes[each] == row.label for each, row in zip(best, part, strict=True))
        return right / len(rows)

    def word_order(self, model: Model, exchange: str | None = None) -> float:
        """How often the true caption is preferred; where `exchange` is given, to wrong ones of that kind alone."""
        source = open_source(self.scenes("binding", count=1000))
        report = evaluate_word_order(*model, source, model_name="row", batch_size=256)
        scores = report.scores if exchange is None else report.groups[exchange]
        return scores.metrics["accuracy"]

    def sounds(self, model: Model) -> float:
        """The median rank of texts by sounds, over guessing's: 1 is chance."""
        source = open_source(self.scenes("test", count=500, sound=1, distractors=0))
        scores = evaluate_sound_retrieval(model[0], source, model_name="row").scores
        return scores.metrics["sound_to_text_median_rank"] / scores.chance["sound_to_text_median_rank"]

    def recall(self, model: Model, distractors: int) -> float:
        """Images by texts, R@10 among 500 scenes."""
        source = open_source(self.scenes("test", count=500, distractors=distractors))
        report = evaluate_retrieval(*model, source, model_name="row", truncate=True, batch_size=256)
        return report.scores.metrics["text_to_image_r10"]

    def captions(self, model: Model, source: Source, count: int) -> Sequence[tuple[str, str]]:
        """The first captions of a source, each with what the model writes by beam search."""
        rows = [source[row] for row in range(min(count, len(source)))]
        written = write_captions(*model, [row.image for row in rows])
        return [(row.captions[0], each["caption"]) for row, each in zip(rows, written, strict=True)]

    def _features(self, model: Model, source: Source) -> LabelledFeatures:
        network, preprocess = model
        labelled = survey_labels(source, None)
        rows = encoded_rows(
            encode_by(network, network.image_features),
            preprocess,
            source,
            labelled.rows,
            device=torch.device("cpu"),
            batch_size=256,
            progress=None,
        )
        return LabelledFeatures.of(source.name, labelled, rows)


def named(source: Source) -> LabelSet:
    """The classes of a source in the words of the captions: "a red circle", "an orange star"."""
    names = tuple(sorted({str(source[row].label) for row in range(min(len(source), 96))}))
    return LabelSet(names, tuple((f"{'an' if name[0] in 'aeiou' else 'a'} {name}",) for name in names))
