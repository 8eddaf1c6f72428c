"""`diptych export`: what it prints, and how it fails."""

from pathlib import Path

import diptych
from tests.cli.command_line import Run
from tests.tiny_model import preprocessing, random_clip


def test_export_prints_the_check_and_json_has_it(tmp_path: Path, run: Run) -> None:
    source = diptych.save(random_clip(), preprocessing(), tmp_path / "source")
    shown = run("export", source, "--format", "transformers", "--out", "out")
    assert shown.code == 0, shown.err
    assert "the same nearest caption for 32 of 32 images" in shown.out
    found = run("export", source, "--format", "transformers", "--out", "out", "--json").json
    assert found["largest_difference"] < 1e-5
    assert "model.safetensors" in found["files"]
    assert found["out"] == "out"
    assert diptych.load("out", device="cpu")[0].architecture == random_clip().architecture


def test_the_bundled_model_fails_in_one_line(run: Run) -> None:
    outcome = run("export", "diptych-mini", "--format", "open_clip", "--out", "out")
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 1
    assert "bag of words" in outcome.err
