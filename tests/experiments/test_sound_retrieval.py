"""Texts ranked by sounds: the chances of guessing, and the models and data that are refused."""

from pathlib import Path
from types import ModuleType

import pytest

import diptych
from diptych.data.sources.opening import open_source
from diptych.errors import DataError, SettingsError
from diptych.models.building import build_model
from diptych.training.recipes import load_recipe

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def sound_retrieval(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import sound_retrieval  # noqa: PLC0415

    return sound_retrieval


def test_ranks_of_an_untrained_model_and_what_is_refused(sound_retrieval: ModuleType) -> None:
    small = "model.architecture.image={resolution=32, layers=[1, 1, 1, 1], width=8, stem_stride=2}"
    architecture = load_recipe("shre", (small, "model.architecture.text.width=8")).model.resolve()
    model = build_model(architecture).eval()
    source = open_source("scenes:test?sound=1&count=24")
    scores = sound_retrieval.evaluate_sound_retrieval(model, source, model_name="tiny").scores
    assert scores.count == 24
    assert scores.chance["sound_to_text_median_rank"] == 12.5
    assert 1 <= scores.metrics["sound_to_text_median_rank"] <= 24
    with pytest.raises(DataError, match="no sound"):
        sound_retrieval.evaluate_sound_retrieval(model, open_source("scenes:test?count=4"), model_name="")
    with pytest.raises(SettingsError, match="hears nothing"):
        sound_retrieval.evaluate_sound_retrieval(diptych.load("diptych-mini")[0], source, model_name="")
