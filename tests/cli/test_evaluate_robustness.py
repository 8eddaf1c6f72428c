"""`diptych evaluate robustness`: a table or reports to the same numbers, a plot for each shift, wrong usage."""

import json
from pathlib import Path
from typing import Any

import pytest

from diptych.evaluation.robustness.effective import bootstrap, fit_line
from tests.cli.command_line import Run

STANDARD = {"small": (0.55, 0.30), "middle": (0.65, 0.42), "large": (0.72, 0.50), "larger": (0.75, 0.55)}
OTHERS = {"zero-shot": (0.68, 0.66), "tuned": (0.79, 0.60)}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two shifts; in the second everybody is a little worse."""
    monkeypatch.chdir(tmp_path)
    lines = ["model,standard,shift,id_accuracy,shift_accuracy,id_count,shift_count,changed_from"]
    for shift, less in (("sketch", 0.0), ("photo/b", 0.1)):
        for model, (before, after) in (STANDARD | OTHERS).items():
            start = "zero-shot" if model == "tuned" else ""
            standard = "yes" if model in STANDARD else "no"
            lines.append(f"{model},{standard},{shift},{before},{after - less:.2f},1000,400,{start}")
    Path("table.csv").write_text("\n".join(lines))
    return "table.csv"


def reports(folder: Path) -> list[Path]:
    """What `evaluate zero-shot --json` prints, a file for each model and set."""
    files = []
    for model, both in (STANDARD | OTHERS).items():
        for data, accuracy, count in (("photos", both[0], 1000), ("sketch", both[1], 400)):
            report: dict[str, Any] = {"task": "zero-shot", "model": model, "data": data, "count": count}
            files.append(folder / f"{model}-{data}.json")
            files[-1].write_text(json.dumps({**report, "metrics": {"top1": accuracy}}))
    return files


def test_json_has_the_lines_and_every_model(table: str, run: Run) -> None:
    found = run("evaluate", "robustness", table, "--json")
    assert found.code == 0, found.err
    sketch, photos = found.json["shifts"]
    assert (sketch["shift"], photos["shift"], sketch["plot"]) == ("sketch", "photo/b", None)
    without, under = zip(*STANDARD.values(), strict=True)
    line = fit_line(without, under, (1000, 400))
    assert sketch["lines"][0]["slope"] == pytest.approx(line.slope)
    models = {entry["model"]: entry for entry in sketch["models"]}
    standing = bootstrap(line, 0.68, 0.66, (1000, 400))
    assert models["zero-shot"]["effective_robustness"] == pytest.approx(standing.effective)
    assert models["zero-shot"]["effective_interval"] == pytest.approx(standing.effective_interval)
    assert models["tuned"]["relative_robustness"] == pytest.approx(-0.06)
    assert models["small"]["effective_interval"] is None


def test_the_table_for_people_lists_the_best_first_and_the_gains_below(table: str, run: Run) -> None:
    found = run("evaluate", "robustness", table)
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    named = [
        line.split()[1] for line in lines if line.startswith("│") and line.split()[1] in STANDARD | OTHERS
    ]
    assert named[:2] == ["zero-shot", "tuned"]
    assert set(named[2:6]) == set(STANDARD)
    assert sum(line.startswith("relative robustness of tuned over zero-shot: -6.0 (") for line in lines) == 2
    assert "sketch: slope" in found.out


def test_reports_say_what_the_table_says(table: str, run: Run, tmp_path: Path) -> None:
    asked = [word for name in STANDARD for word in ("--standard", name)]
    files = reports(tmp_path)
    found = run("evaluate", "robustness", *files, "--id-data", "photos", *asked, "--json")
    assert found.code == 0, found.err
    (sketch,) = found.json["shifts"]
    other = run("evaluate", "robustness", table, "--json").json["shifts"][0]
    assert sketch["lines"] == other["lines"]
    for entry, same in zip(sketch["models"], other["models"], strict=True):
        assert entry["effective_interval"] == same["effective_interval"]


def test_each_shift_is_drawn_into_a_file_of_its_name(table: str, run: Run) -> None:
    found = run("evaluate", "robustness", table, "--plot", "plots/robustness.svg", "--json")
    assert found.code == 0, found.err
    files = [shift["plot"] for shift in found.json["shifts"]]
    assert files == ["plots/robustness-sketch.svg", "plots/robustness-photo-b.svg"]
    assert all(Path(file).read_text("utf-8").startswith("<?xml") for file in files)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["table.csv", "--standard", "small"], 2, "--standard goes with --id-data"),
        (["table.csv", "--id-data", "photos"], 2, "--id-data: name the standard models too"),
        (["table.csv", "--pivot", "sketch=91.86"], 2, "--pivot 'sketch=91.86': expected SHIFT=ACCURACY"),
        (["table.csv", "--pivot", "0.9"], 2, "--pivot '0.9': expected SHIFT=ACCURACY"),
        (["table.csv", "--pivot", "paintings=0.7"], 1, "pivot of 'paintings': no such shift"),
        (["table.csv", "--pivot", "sketch=0.7"], 1, "sketch: 2 standard models: a line needs at least 3"),
        (["table.csv", "--plot", "plot.pdf"], 1, "a plot is written as .svg or .png"),
        (["absent.csv"], 1, "absent.csv: cannot be read"),
        (["absent.json", "--id-data", "photos", "--standard", "a"], 1, "absent.json: cannot be read"),
    ],
)
def test_wrong_usage_is_answered_with_a_message(
    table: str, run: Run, arguments: list[str], code: int, message: str
) -> None:
    found = run("evaluate", "robustness", *arguments)
    assert (found.code, found.out) == (code, "")
    assert message in found.err
