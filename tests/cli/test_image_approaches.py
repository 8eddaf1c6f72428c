"""SimCLR and SimCLRv2 from end to end on the command line: pre-train, probe, fine-tune, measure, distil."""

from pathlib import Path

import pytest

from tests.cli.command_line import Run
from tests.training.label_pictures import write_pictures

SMALL = (
    "--set", "model.architecture.image={resolution=32, patch=16, width=16, layers=1, heads=2}",
    "--set", "training.batch_size=6",
    "--set", "training.steps=3",
    "--set", "schedule.warmup_steps=1",
    "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of three colours."""
    return write_pictures(tmp_path_factory.mktemp("colours"), 6)


def train(run: Run, recipe: str, colours: Path, out: str, *more: str) -> None:
    assignments = [part for assignment in more for part in ("--set", assignment)]
    outcome = run(
        "train", recipe, "--out", out, "--set", f"data.train={str(colours)!r}", *SMALL, *assignments
    )
    assert outcome.code == 0, outcome.err


def test_the_three_steps_of_simclrv2_and_what_measures_them(colours: Path, run: Run) -> None:
    train(run, "simclr", colours, "runs/simclr", "model.architecture.text={head_layers=3}")
    both = ("--train", colours, "--test", colours, "--device", "cpu", "--json")
    probed = run("evaluate", "linear-probe", "--model", "runs/simclr/model", *both)
    assert probed.code == 0, probed.err
    assert probed.json["metrics"]["top1"] > 1 / 3

    train(run, "simclr-finetune", colours, "runs/simclr-finetune", "data.labels_per_class=5")
    told = run("evaluate", "labels", "--model", "runs/simclr-finetune/model", "--data", colours, "--json")
    assert told.code == 0, told.err
    assert told.json["task"] == "labels"
    assert told.json["count"] == 18
    assert told.json["chance"]["top1"] == pytest.approx(1 / 3)

    train(run, "simclr-distil", colours, "runs/student")
    assert run("evaluate", "labels", "--model", "runs/student/model", "--data", colours).code == 0
    assert run("evaluate", "linear-probe", "--model", "runs/student/model", *both).code == 0


def test_commands_for_words_say_that_there_are_none_and_what_to_use(colours: Path, run: Run) -> None:
    train(run, "simclr", colours, "runs/simclr")
    for command in (
        ("evaluate", "zero-shot", "--data", colours),
        ("evaluate", "labels", "--data", colours),
        ("classify", colours, "--labels", "red,blue"),
        ("index", colours, "--index", "i"),
        ("embed", colours, "--out", "e.npy"),
    ):
        outcome = run(*command, "--model", "runs/simclr/model", "--device", "cpu")
        assert outcome.code == 1, command
        assert "linear-probe" in outcome.err


def test_labels_are_measured_on_the_way_and_the_best_is_kept(colours: Path, run: Run) -> None:
    task = f"{{name='seen', task='labels', data={str(colours)!r}}}"
    best = f"evaluation={{every_steps=1, best='seen_top1', tasks=[{task}]}}"
    train(run, "labels", colours, "runs/labels", best, "data.label_from=label")
    assert Path("runs/labels/model-best/model.safetensors").exists()


def test_the_doctor_finds_nothing_wrong_with_pictures_without_captions(colours: Path, run: Run) -> None:
    for recipe in ("simclr", "labels"):
        outcome = run(
            "doctor",
            recipe,
            "--set",
            f"data.train={str(colours)!r}",
            "--set",
            "data.label_from=label",
            *SMALL,
        )
        assert "captions" not in outcome.out, outcome.out
        assert "memory of the run" in outcome.out
        assert "time of the run" in outcome.out
        assert outcome.code == 0, outcome.out
