"""The table of fine-tuning at its smallest: every method runs, and what is between the ends is judged as it says."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def finetuning(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import finetuning  # noqa: PLC0415

    return finetuning


def test_few_methods_run_at_their_smallest_and_are_not_run_again(
    finetuning: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(finetuning, "SEVERAL_SEEDS", ("full",))
    monkeypatch.setattr(finetuning, "ONCE", ("contrastive",))
    text = run(finetuning, monkeypatch, tmp_path)
    for words in (
        "| as it was, by words | 1 | ",
        "| a linear probe alone | 1 | ",
        "| `full` | 1 | ",
        "| `wise-ft`, alpha 0.5 | 1 | ",
        "On the sum, ",
    ):
        assert words in text
    assert [job["method"] for job in json.loads((tmp_path / "finetuning.json").read_text())] == [
        "start", "probe", "full", "contrastive",
    ]  # fmt: skip
    monkeypatch.setattr(finetuning, "fine_tune", None)
    assert run(finetuning, monkeypatch, tmp_path) == text


@pytest.mark.nightly
def test_every_method_runs_at_its_smallest(
    finetuning: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = run(finetuning, monkeypatch, tmp_path)
    assert all(f"| `{method}` | 1 | " in text for method in (*finetuning.SEVERAL_SEEDS, *finetuning.ONCE))


def run(finetuning: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    arguments = ["--quick", "--workers", "0", "--out", str(folder / "out"), "--page", str(folder)]
    monkeypatch.setattr(sys, "argv", ["finetuning.py", *arguments])
    finetuning.main()
    return (folder / "finetuning.md").read_text()


def test_an_alpha_is_chosen_on_one_half_and_judged_on_the_other(finetuning: ModuleType) -> None:
    page = sys.modules["finetuning_page"]

    def measured(test: list[float], other: list[float]) -> dict[str, dict[str, object]]:
        return {
            "test": {"halves": test, "top1": sum(test) / 2},
            "names": {"halves": other, "top1": sum(other) / 2},
        }

    start, end = measured([0.2, 0.2], [0.5, 0.5]), measured([0.6, 0.6], [0.2, 0.2])
    job = {
        "measured": end,
        "between": [
            {
                "alpha": 0.25,
                **measured([0.9, 0.1], [0.5, 0.5]),
            },  # the best on the first half, poor on the second
            {"alpha": 0.5, **measured([0.5, 0.5], [0.5, 0.5])},
        ],
    }
    difference, alpha = page.gain(start, job)
    # On the first half 0.25 is chosen and gets 0.6 on the second; on the second 0.5 is, and gets 1.0 on the first.
    assert difference == pytest.approx(((0.6 - 0.8) + (1.0 - 0.8)) / 2)
    assert alpha == 0.25
    assert page.total(start) == pytest.approx(0.7)
