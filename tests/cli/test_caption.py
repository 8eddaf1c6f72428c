"""`diptych caption` and `diptych evaluate word-order` on a captioner that has trained for a moment."""

from pathlib import Path

import pytest

from diptych.data.sources.opening import open_source
from diptych.training.engine import train
from diptych.training.recipes import load_recipe
from tests.cli.command_line import Run


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("captioner") / "run"
    settings = (
        "data.train='scenes:train?count=32&side=36'",
        "model.architecture.image={resolution=32, layers=[1, 1, 1, 1], width=8, stem_stride=2}",
        "training.batch_size=8",
        "training.samples=16",
        "data.workers=0",
    )
    train(load_recipe("caption-forward", settings), out)
    return out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(2):
        image = open_source("scenes:test")[number].image
        assert isinstance(image, bytes)
        (tmp_path / "photos" / f"{number}.png").write_bytes(image)
    (tmp_path / "photos" / "broken.png").write_bytes(b"nothing")
    return tmp_path / "photos"


def test_pictures_of_a_folder_get_captions_and_broken_ones_a_warning(
    captioner: Path, photos: Path, run: Run
) -> None:
    outcome = run("caption", photos, "--model", captioner, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert [Path(each["image"]).name for each in found] == ["0.png", "1.png"]
    assert all(each["log_likelihood"] < 0 for each in found)
    assert "warning: left out 1 (not an image)" in outcome.err
    drawn = run("caption", photos / "0.png", "--model", captioner, "--nucleus", "0.9")
    assert drawn.out.startswith(f"{photos / '0.png'}: ")


def test_wrong_numbers_and_models_without_captions_are_refused(
    captioner: Path, photos: Path, run: Run
) -> None:
    for wrong in (("--beams", "0"), ("--nucleus", "1.5")):
        assert run("caption", photos, "--model", captioner, *wrong).code == 2
    outcome = run("caption", photos, "--model", "diptych-mini")
    assert outcome.code == 1
    assert "writes no captions" in outcome.err


def test_word_order_is_reported_for_each_exchange(captioner: Path, run: Run) -> None:
    outcome = run(
        "evaluate", "word-order", "--model", captioner, "--data", "scenes:binding?count=20", "--json"
    )
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert found["chance"] == {"accuracy": 0.5}
    assert set(found["groups"]) == {"colours", "things"}
    refused = run("evaluate", "word-order", "--model", captioner, "--data", "scenes:test?count=5")
    assert refused.code == 1
    assert "scenes:binding" in refused.err
