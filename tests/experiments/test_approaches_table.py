"""The table of approaches at its smallest: every row runs from its recipes, and its arithmetic is right."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

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


@pytest.mark.nightly
def test_every_row_runs_at_its_smallest(
    approaches: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = run(approaches, monkeypatch, tmp_path, *approaches.ROWS)
    assert "| scene | written |" in text
    assert all(f"| {row.system} ({row.section}) |" in text for row in approaches.ROWS.values())
    assert (
        "bag of words: 50.0 % (50.0 % to 50.0 %)" in text
    )  # who ignores the order is at chance to the last scene
    assert "nan" not in text


def test_a_claim_is_shown_where_the_interval_lies_on_its_side(approaches: ModuleType) -> None:
    row = approaches.ROWS["simclr"]
    apart = [{"measured": 0.5 + step, "control": 0.2} for step in (-0.01, 0.0, 0.01)]
    middle, half = approaches.difference(row, apart)
    assert (middle, half) == pytest.approx((0.3, 4.303 * 0.01 / 3**0.5))
    assert approaches.line(row, apart)[-1] == "yes"
    near = [{"measured": 0.36 + step, "control": 0.2} for step in (-0.03, 0.0, 0.03)]
    assert approaches.line(row, near)[-1] == "no"
    ranks = approaches.ROWS["shre"]
    less = [{"measured": 0.1 + step, "control": 1.0} for step in (-0.01, 0.0, 0.01)]
    assert approaches.line(ranks, less)[-1] == "yes"
    assert approaches.line(ranks, less)[-2].startswith("-0.900")


def test_every_row_says_what_it_claims_and_what_its_control_is(approaches: ModuleType) -> None:
    for row in approaches.ROWS.values():
        assert row.system
        assert row.section in "abcdefghijklmno"
        assert row.claim
        assert row.measure
        assert row.control
