"""A language model of the captions, and a CLIP whose text tower starts from it."""

import json
from pathlib import Path

import pytest
import torch

import diptych
from diptych.data.sources.opening import open_source
from diptych.errors import SettingsError
from diptych.models.building import build_model
from diptych.models.language_tower import LanguageTower
from diptych.models.text_transformer import TextTransformer
from diptych.objectives.vocabulary_softmax import log_likelihoods
from diptych.training.engine import train
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe

TINY = (
    "data.train='scenes:train?count=64&side=36'",
    "model.architecture.image={resolution=32, layers=[1, 1, 1, 1], width=8, stem_stride=2}",
    "model.architecture.text={width=16, layers=1, heads=2, context_length=24, embedding_width=8}",
    "training.batch_size=8",
    "training.samples=32",
    "schedule.warmup_steps=1",
    "data.workers=0",
    "evaluation.tasks=[]",
)


def tiny(name: str, *more: str) -> Recipe:
    return load_recipe("scenes", (*TINY, f"objective.name='{name}'", *more))


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("language") / "run"
    train(tiny("language", "training.samples=120", "optimizer.learning_rate=2e-2"), out)
    return out


def test_a_language_model_learns_and_leaves_the_image_tower_as_it_was(language_model: Path) -> None:
    losses = [line["loss"] for line in logged(language_model)]
    assert losses[-1] < 6  # ln 49,408 is 10.8
    model, _ = diptych.load(str(language_model / "model"))
    torch.manual_seed(0)
    fresh = build_model(model.architecture)
    untouched = [*fresh.visual.state_dict().items()]
    assert all(torch.equal(value, model.visual.state_dict()[name]) for name, value in untouched)
    assert isinstance(fresh.text, TextTransformer)
    assert isinstance(model.text, TextTransformer)
    assert not torch.equal(fresh.text.token_embedding.weight, model.text.token_embedding.weight)


def test_a_tower_that_starts_from_it_knows_its_words(language_model: Path, tmp_path: Path) -> None:
    start = f"model.text_init={str(language_model / 'model')!r}"
    run = tmp_path / "run"
    train(tiny("clip-language", start, "training.samples=8"), run)
    first = logged(run)[0]
    assert first["language_loss"] < 9  # ln 49,408 is 10.8
    train(tiny("clip-language", "training.samples=8"), tmp_path / "scratch")
    assert logged(tmp_path / "scratch")[0]["language_loss"] > 10
    train(tiny("clip", start, "model.architecture.embed_dim=16"), tmp_path / "other")  # its projection is new


def test_the_weight_of_the_language_loss_is_that_of_its_sum(tmp_path: Path) -> None:
    found = []
    for weight in (0.0, 0.5):
        out = tmp_path / str(weight)
        train(tiny("clip-language", f"objective.language_weight={weight}", "training.samples=8"), out)
        found.append(logged(out)[0])
    assert found[1]["loss"] == pytest.approx(found[0]["loss"] + 0.5 * found[0]["language_loss"], rel=1e-5)
    train(tiny("clip", "training.samples=8"), tmp_path / "clip")
    assert logged(tmp_path / "clip")[0]["loss"] == pytest.approx(found[0]["loss"], rel=1e-5)


def test_surprise_of_the_trained_model_is_less_on_captions_than_on_their_words_reversed(
    language_model: Path,
) -> None:
    model, _ = diptych.load(str(language_model / "model"))
    tower = LanguageTower(model.text, log_likelihoods)  # type: ignore[arg-type]
    source = open_source("scenes:test?count=32&side=16&distractors=0")
    captions = [source[number].captions[0] for number in range(32)]
    turned = [" ".join(reversed(text.split())) for text in captions]
    with torch.no_grad():
        right, wrong = (tower(diptych.tokenize(texts)[:, :24])[:, -1].mean() for texts in (captions, turned))
    assert right < wrong


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("clip-language", ("model.architecture.text={width=16, context_length=24}",), "BagOfWords"),
        ("clip-language", ("model.architecture.heads='nonlinear'",), "leave .* heads out"),
    ],
)
def test_models_without_a_plain_text_transformer_are_refused(
    name: str, settings: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=said):
        train(tiny(name, *settings), tmp_path / "run")


def test_another_text_tower_is_no_start(language_model: Path, tmp_path: Path) -> None:
    start = f"model.text_init={str(language_model / 'model')!r}"
    with pytest.raises(SettingsError, match="another text tower"):
        train(tiny("clip", start, "model.architecture.text.layers=2"), tmp_path / "run")
    with pytest.raises(SettingsError, match="a BagOfWords and a TextTransformer"):
        train(tiny("clip", start, "model.architecture.text={width=16, context_length=24}"), tmp_path / "bag")
