"""The table of approaches at its smallest: every row runs from its recipes, and its arithmetic is right."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from diptych.models.architectures import LabelHead
from diptych.training.engine import train
from diptych.training.settings import Recipe

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def approaches(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import approaches  # noqa: PLC0415

    return approaches


def run(approaches: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> str:
    arguments = [
        "--quick",
        "--workers",
        "0",
        "--out",
        str(folder / "out"),
        "--page",
        str(folder),
        "--only",
        *names,
    ]
    monkeypatch.setattr(sys, "argv", ["approaches.py", *arguments])
    approaches.main()
    return (folder / "approaches.md").read_text()


def test_a_row_runs_at_its_smallest_and_is_not_run_again(
    approaches: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("unseen",)
    text = run(approaches, monkeypatch, tmp_path, *names)
    assert "| CLIP, unseen combinations (e) |" in text
    assert "control" in text
    assert "nan" not in text
    found = json.loads((tmp_path / "approaches.json").read_text())
    assert {name: len(results) for name, results in found.items()} == dict.fromkeys(names, 2)
    monkeypatch.setattr(approaches, "Bench", None)
    assert run(approaches, monkeypatch, tmp_path, *names) == text


def test_rows_that_train_the_same_model_train_it_once(
    approaches: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import approaches_bench  # noqa: PLC0415

    trained = []

    def counted(recipe: Recipe, out: Path) -> None:
        trained.append(recipe)
        train(recipe, out)

    monkeypatch.setattr(approaches_bench, "train", counted)
    first, again, other = (
        approaches_bench.Bench(tmp_path / str(row), tmp_path / "kept", seed, quick=True)
        for row, seed in enumerate((0, 0, 1))
    )
    places = [
        bench.train("model", "scenes-labels", samples=64, data=bench.scenes("classes-train"))
        for bench in (first, again, other)
    ]
    assert places[0] == places[1] != places[2]
    assert [recipe.training.seed for recipe in trained] == [0, 1]
    assert first.borrowed == other.borrowed == 0 < again.borrowed
    first.clear()
    text = again.load(places[1])[0].architecture.text
    assert isinstance(text, LabelHead)
    assert text.classes


def test_a_page_can_be_written_from_the_results_that_there_are(
    approaches: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = {"row": "siglip", "seed": 1, "quick": True, "version": approaches.ROWS["siglip"].version}
    approaches.keep_result(tmp_path / "out", "siglip-1", settings, {"measured": 0.5, "control": 0.25})
    text = run(approaches, monkeypatch, tmp_path, "clip", "siglip", "--page-only")
    assert "1 seed a row" in text
    assert "**0 of 1 claims are shown.** Open: SigLIP (it names classes)." in text
    assert "| 1 | 50.0 % | 25.0 %, captions permuted | +25.0 points | open |  |" in text
    assert "CLIP, bag of words" not in text
    with pytest.raises(SystemExit):
        run(approaches, monkeypatch, tmp_path, "clip", "--page-only")


@pytest.mark.nightly
def test_every_row_runs_at_its_smallest(
    approaches: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = run(approaches, monkeypatch, tmp_path, *approaches.ROWS)
    assert "| true | written |" in text
    assert all(f"| {row.system}" in text for row in approaches.ROWS.values())
    # Who ignores the order is at chance to the last scene.
    assert "50.0 % (50.0 to 50.0), bag of words" in text
    assert "nan" not in text


def test_a_claim_is_shown_where_the_interval_lies_on_its_side(approaches: ModuleType) -> None:
    row = approaches.ROWS["simclr"]
    steps = (-0.01, -0.01, 0.0, 0.01, 0.01)
    apart = [{"measured": 0.5 + step, "control": 0.2} for step in steps]
    middle, half = approaches.difference(row, apart)
    assert (middle, half) == pytest.approx((0.3, 2.776445105 * 0.01 / 5**0.5))
    assert approaches.line(row, apart)[-2:] == ["yes", ""]
    # As sure, but the row has five seeds.
    assert approaches.line(row, apart[1:4])[-2] == "open"
    near = [{"measured": 0.36 + 3 * step, "control": 0.2} for step in steps]
    assert approaches.line(row, near)[-2] == "open"
    assert approaches.line(row, near)[-3] == "+16.0 ± 3.7 points"
    below = [{"measured": 0.3 + step, "control": 0.2} for step in steps]
    assert approaches.line(row, below)[-2] == "**no**"
    assert approaches.line(row, near)[1].endswith(", by 15 points or more")
    timed = [{**result, "core_minutes": took} for result, took in zip(near[3:], (2.04, 3.26), strict=True)]
    assert approaches.line(row, [*near[:3], *timed])[-1] == "3.3"
    ranks = approaches.ROWS["shre"]
    less = [{"measured": 0.1 + step, "control": 1.0} for step in (-0.01, 0.0, 0.01)]
    assert approaches.line(ranks, less)[-2] == "yes"
    assert approaches.line(ranks, less)[-3].startswith("-0.900")
    assert approaches.summary({"simclr": below, "shre": less}) == (
        "**1 of 2 claims are shown.** Not shown: SimCLR (views alone teach features)."
    )


def test_every_row_says_what_it_claims_and_what_its_control_is(approaches: ModuleType) -> None:
    page = (EXPERIMENTS.parent / "docs" / "approaches.md").read_text("utf-8")
    letters = {"", *re.findall(r"^\| ([a-z]) \|", page, re.MULTILINE)}
    for row in approaches.ROWS.values():
        assert row.system
        assert row.section in letters
        assert row.claim
        assert row.measure
        assert row.control
