"""`diptych.evaluate` and `diptych.classify`: the same answers as the functions and the command line behind them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.cli.__main__ import main
from diptych.evaluation.retrieval import evaluate_retrieval
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot
from diptych.evaluation.zero_shot.prompts import TEMPLATES
from tests.tiny_model import preprocessing, random_clip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model `tiny`, and `classes` with six images each of a cat and a dog, with captions."""
    folder = tmp_path_factory.mktemp("here")
    diptych.save(random_clip(), preprocessing(), folder / "tiny")
    for number, label in enumerate(["cat", "dog"] * 6):
        place = folder / "classes" / label
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
        (place / f"{number}.txt").write_text(f"{label} number {number}")
    return folder


def test_a_task_gives_what_its_function_gives(here: Path) -> None:
    model, preprocess = diptych.load(here / "tiny", device="cpu")
    source = diptych.open_source(here / "classes")
    expected = evaluate_zero_shot(model, preprocess, source, model_name=str(here / "tiny"))
    for data in (here / "classes", str(here / "classes"), source):
        found = diptych.evaluate("zero-shot", model, preprocess, data)
        assert found.to_json()["metrics"] == expected.to_json()["metrics"]
        assert (found.model, found.data) == (str(here / "tiny"), expected.data)
    recall = evaluate_retrieval(model, preprocess, source, model_name="tiny").scores
    assert diptych.evaluate("retrieval", model, preprocess, source).scores == recall


def test_the_command_line_prints_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, preprocess = diptych.load(here / "tiny", device="cpu")
    report = diptych.evaluate("zero-shot", model, preprocess, here / "classes", templates="photo")
    options = [
        "--model",
        str(here / "tiny"),
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--no-cache",
        "--json",
    ]
    command = ["evaluate", "zero-shot", "--data", str(here / "classes"), "--templates", "photo"]
    assert main([*command, *options]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(report.to_json()))


def test_a_probe_learns_from_a_source_or_a_place(here: Path) -> None:
    model, preprocess = diptych.load(here / "tiny", device="cpu")
    by_place = diptych.evaluate(
        "few-shot", model, preprocess, here / "classes", train=here / "classes", shots=(1, 2)
    )
    source = diptych.open_source(here / "classes")
    by_source = diptych.evaluate("few-shot", model, preprocess, source, train=source, shots=[1, 2])
    assert by_place.scores == by_source.scores
    other = diptych.open_source(here / "classes")
    with pytest.raises(diptych.SettingsError, match="two sources of that name"):
        diptych.evaluate("few-shot", model, preprocess, source, train=other)


def test_unknown_tasks_and_options_are_refused_with_the_nearest_name(here: Path) -> None:
    model, preprocess = diptych.load(here / "tiny", device="cpu")
    with pytest.raises(diptych.SettingsError, match="task 'zeroshot': did you mean 'zero-shot'"):
        diptych.evaluate("zeroshot", model, preprocess, here / "classes")
    with pytest.raises(diptych.SettingsError, match="unknown setting 'template'; did you mean 'templates'"):
        diptych.evaluate("zero-shot", model, preprocess, here / "classes", template="a {}")
    with pytest.raises(diptych.DataError, match="Put it here"):
        diptych.evaluate("zero-shot", model, preprocess, "benchmark:cifar10", root=here)


def test_a_model_that_was_not_loaded_is_unnamed(here: Path) -> None:
    report = diptych.evaluate("zero-shot", random_clip(), preprocessing(), here / "classes")
    assert report.model == "unnamed"


def test_templates_are_a_name_a_template_or_a_list(here: Path) -> None:
    model, preprocess = diptych.load(here / "tiny", device="cpu")
    image = here / "classes" / "cat" / "0.png"

    def similarity(templates: str | list[str] | None) -> float:
        answers = diptych.classify(model, preprocess, image, ["cat", "dog"], templates=templates)
        return {one["label"]: one["similarity"] for one in answers[0]["predictions"]}["cat"]

    assert similarity(None) == similarity("plain")  # Diptych wrote the model
    assert similarity("photo") == similarity(list(TEMPLATES["photo"]))
    assert similarity("a {}") == similarity(["a {}"]) != similarity(None)
    with pytest.raises(diptych.SettingsError, match="where the name goes"):
        similarity(["a photo"])


def test_labels_are_a_list_or_the_classes_that_a_model_learned(here: Path) -> None:
    model, preprocess = diptych.load(here / "tiny", device="cpu")
    image = here / "classes" / "cat" / "0.png"
    with pytest.raises(diptych.SettingsError, match="one string; expected a list of names"):
        diptych.classify(model, preprocess, image, "cat,dog")
    with pytest.raises(diptych.SettingsError, match="no classes of its own"):
        diptych.classify(model, preprocess, image)
    with pytest.raises(diptych.SettingsError, match="go with labels in words"):
        diptych.classify(model, preprocess, image, threshold=0.3)
