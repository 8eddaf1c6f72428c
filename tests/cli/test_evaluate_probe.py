"""`diptych evaluate linear-probe` and `few-shot` on a few pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.evaluation.probes.logistic_regression import Fit, LogisticRegression
from tests.cli.command_line import Run

MEANS = {"dark": 50, "light": 200}
FAILED, USAGE = 1, 2


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of dark and light pictures: `train` and `test`."""
    folder = tmp_path_factory.mktemp("shades")
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name, mean in MEANS.items():
            (folder / part / name).mkdir(parents=True)
            for number in range(6):
                shade = int(mean + random.integers(-40, 40))
                Image.new("RGB", (32, 32), (shade,) * 3).save(folder / part / name / f"{number}.png")
    return folder


def test_a_probe_says_how_well_it_does_and_how_it_was_chosen(tiny: Path, shades: Path, run: Run) -> None:
    places = ("--train", shades / "train", "--test", shades / "test", "--model", tiny)
    outcome = run("evaluate", "linear-probe", *places, "--json")
    assert outcome.code == 0, outcome.err
    report = outcome.json
    assert (report["task"], report["count"]) == ("linear-probe", 12)
    # An untrained model's features tell dark from light, if not every shade of it.
    assert report["metrics"]["top1"] > report["chance"]["top1"]
    assert report["details"]["training_images"] == 12
    assert f"C = {report['details']['C']:.3g}, the best of {len(report['details']['tried'])}" in outcome.err
    assert "not converged" not in outcome.err
    assert "mean per class" in run("evaluate", "linear-probe", *places).out


def test_a_fit_that_has_not_converged_is_warned_of(
    tiny: Path, shades: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LogisticRegression.fit

    def stopped(regression: LogisticRegression, strength: float, start: Fit | None = None, **_: float) -> Fit:
        return whole(regression, strength, start, max_iterations=1, max_products=0)

    monkeypatch.setattr(LogisticRegression, "fit", stopped)
    outcome = run(
        *("evaluate", "linear-probe", "--train", shades / "train", "--test", shades / "test", "--json"),
        *("--model", tiny),
    )
    assert outcome.code == 0
    assert outcome.json["details"]["converged"] is False
    assert "warning: a fit had not converged" in outcome.err


def test_validation_pictures_and_another_metric_can_be_given(tiny: Path, shades: Path, run: Run) -> None:
    outcome = run(
        *("evaluate", "linear-probe", "--train", shades / "train", "--test", shades / "test", "--json"),
        *("--validation", shades / "test", "--metric", "roc_auc", "--model", tiny),
    )
    report = outcome.json
    assert next(iter(report["metrics"])) == "roc_auc"
    assert report["details"]["validated_with"] == str(shades / "test")
    assert report["details"]["training_images"] == 24


def test_few_shots_are_compared_with_zero_shot(tiny: Path, shades: Path, run: Run) -> None:
    outcome = run(
        *("evaluate", "few-shot", "--train", shades / "train", "--test", shades / "test", "--json"),
        *("--shots", "1,2", "--seeds", 2, "--zero-shot", 0.01, "--model", tiny),
    )
    report = outcome.json
    assert list(report["metrics"]) == ["top1_1_shot", "top1_2_shot"]
    assert report["details"]["crossing"] == {"examples": 1.0, "relation": "at most"}
    assert "is worth at most 1.0 labelled images a class" in outcome.err


def test_several_labels_a_picture_are_probed_by_the_map(tiny: Path, tmp_path: Path, run: Run) -> None:
    random = np.random.default_rng(0)
    for number in range(24):
        has = {"red": bool(number % 2), "blue": number % 3 > 0}
        colour = (200 * has["red"], int(random.integers(0, 60)), 200 * has["blue"])
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{number}.png")
        labels = [name for name, shown in has.items() if shown]
        (tmp_path / f"{number}.json").write_text(json.dumps({"labels": labels}))
    outcome = run(
        *("evaluate", "linear-probe", "--train", tmp_path, "--test", tmp_path, "--model", tiny),
        *("--metric", "map11", "--json"),
    )
    assert outcome.code == 0, outcome.err
    assert outcome.json["metrics"]["map11"] > outcome.json["chance"]["map11"]
    assert outcome.json["groups"].keys() == {"red", "blue"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("linear-probe --test TEST", (USAGE, "train is missing")),
        (
            "linear-probe --train TRAIN --test TEST --metric map11 --label-from label",
            (USAGE, "leave out label_from"),
        ),
        ("few-shot --train TRAIN --test TEST --shots 1,x", (USAGE, "--shots '1,x'")),
        ("few-shot --train TRAIN --test TEST --shots 0", (FAILED, "expected whole numbers from 1")),
        ("few-shot --train TRAIN --test TEST", (FAILED, "has 6 images; 16 shots need 16")),
        ("linear-probe --train TRAIN --test nowhere", (FAILED, "nowhere")),
        ("linear-probe --train TRAIN/dark --test TEST", (FAILED, "has no label")),
        ("linear-probe --test benchmark:no-such", (FAILED, "no-such")),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_line(
    tiny: Path, shades: Path, run: Run, arguments: str, expected: tuple[int, str]
) -> None:
    filled = [
        word.replace("TRAIN", str(shades / "train")).replace("TEST", str(shades / "test"))
        for word in arguments.split()
    ]
    outcome = run("evaluate", *filled, "--model", tiny)
    code, message = expected
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert message in outcome.err
    assert "Traceback" not in outcome.err
