"""The recipes on the scenes train, are measured, and what they made is read again by every command that can use it."""

from pathlib import Path

import pytest
import torch

import diptych
from diptych.data.example import Example
from diptych.data.sources.opening import open_source
from diptych.doctor.caption_checks import caption_checks
from diptych.evaluation.generated_captions import write_captions
from diptych.models.heads.captioner import Captioner
from diptych.models.heads.word_predictor import WordPredictor
from diptych.runs.evaluations import evaluation_of
from diptych.tokenizer import tokenize
from diptych.training.engine import train
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe

RECIPES = ("scenes", "virtex", "caption-forward", "caption-masked", "word-prediction")
TINY = (
    "data.train='scenes:train?count=64&side=36'",
    "model.architecture.image={resolution=32, layers=[1, 1, 1, 1], width=8, stem_stride=2}",
    "training.batch_size=8",
    "training.samples=24",
    "schedule.warmup_steps=1",
    "data.workers=0",
)


def tiny(name: str, *more: str) -> Recipe:
    recipe = load_recipe(name, (*TINY, *more))
    if not recipe.evaluation.tasks:
        return recipe
    return load_recipe(
        name,
        (
            *TINY,
            "evaluation.tasks=[{name='c', task='zero-shot', data='scenes:classes-test?count=48&side=32'}]",
            *more,
        ),
    )


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_is_measured_and_its_model_loads(name: str, tmp_path: Path) -> None:
    recipe = tiny(name)
    result = train(recipe, tmp_path / name, evaluate=evaluation_of(recipe))
    assert result.step == 3
    log = (tmp_path / name / "metrics.jsonl").read_text()
    assert ("c_top1" in log) == (name != "caption-masked")
    assert ('"accuracy"' in log) == (name in ("scenes", "word-prediction"))  # a captioner ranks nothing
    model, preprocess = diptych.load(str(tmp_path / name / "model"))
    pixels = preprocess(open_source("scenes:test")[0].image)[None]
    assert torch.isfinite(model.image_features(pixels)).all()
    if name in ("virtex", "caption-forward"):
        (written,) = write_captions(model, preprocess, [open_source("scenes:test")[0].image])
        assert written["log_likelihood"] < 0


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "scenes"])
def test_recipes_know_every_word_of_the_scenes(name: str) -> None:
    """Whatever the number of distractors and the seed."""
    text = load_recipe(name).model.resolve().text
    assert isinstance(text, Captioner | WordPredictor) or hasattr(text, "known")
    known = {0, 49_406, 49_407, *text.known}
    source = open_source("scenes:train?side=16&distractors=4&count=300&seed=9")
    tokens = tokenize([source[number].captions[0] for number in range(300)], context_length=96)
    assert set(tokens.flatten().tolist()) <= known


def test_two_runs_of_a_recipe_are_equal_to_the_bit(tmp_path: Path) -> None:
    losses = {train(tiny("virtex"), tmp_path / str(number)).loss for number in range(2)}
    assert len(losses) == 1


@pytest.mark.parametrize(("same", "status"), [(20, "ok"), (40, "fail")])
def test_the_doctor_knows_that_equal_captions_are_no_wrong_answers(same: int, status: str) -> None:
    examples = [Example(str(number), b"", ("a star" if number < same else "a ring",)) for number in range(40)]
    checks = {check.name: check for check in caption_checks(examples, load_recipe("virtex"))}
    assert checks["something to learn"].status == status
    assert checks["something to learn"].detail.startswith(f"{1 + (same < 40)} captions of 40 are distinct")
    assert "same captions" not in checks
