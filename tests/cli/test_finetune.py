"""`diptych finetune` and what takes its result."""

import base64
import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import diptych
from tests.cli.command_line import Run
from tests.training.label_pictures import write_pictures

QUICK = (
    "--keep", "none", "--device", "cpu", "--set", "training.steps=4", "--set", "training.batch_size=6",
    "--set", "evaluation.every_steps=2", "--set", "finetune.alphas=[0.0, 0.5, 1.0]", "--set", "data.workers=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("photos"))


def test_one_command_fine_tunes_tells_what_changed_and_writes_a_page(
    run: Run, tiny: Path, photos: Path, tmp_path: Path
) -> None:
    told = run(
        "finetune", photos, "--model", tiny, "--out", tmp_path / "run", *QUICK, "--json",
        "--method", "wise-ft", "--set", "optimizer.learning_rate=0.1",
    )  # fmt: skip
    assert told.code == 0, told.err
    assert told.json["step"] > 0
    assert told.json["method"] == "wise-ft"
    assert told.json["alpha"] == 0.5
    assert [point["alpha"] for point in told.json["curve"]] == [0.0, 0.5, 1.0]
    assert set(told.json["before"]) == set(told.json["start"]) == set(told.json["after"]) == {"held_out"}
    models = [told.json[when]["held_out"]["model"] for when in ("before", "start", "after")]
    assert models == [str(tiny), str(tmp_path / "run" / "start"), str(tmp_path / "run" / "model")]
    assert told.json["held_out"]["grouped_by"] == "near copies"
    assert "held out 6 of 24 rows, by whole groups (near copies)" in told.err
    assert "24 images of 3 classes, 20% held out: wise-ft for at most" in told.err
    page = (tmp_path / "run" / "finetune.html").read_text()
    for words in (
        "Before and after",
        "asked by the names of the classes",
        "Held out 6 of 24 rows, by whole groups (near copies)",
        "Between both models",
        "Reliability before",
        "Reliability after",
        "Examples that changed",
        "95\u00a0%",
    ):
        assert words in page
    assert "http" not in page.replace("http-equiv", "")
    figures = json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert figures["checkpoint"] == told.json["checkpoint"]


def test_the_result_is_taken_by_every_command(run: Run, tiny: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = run("finetune", photos, "--model", tiny, "--out", out, "--method", "lp-ft", *QUICK)
    assert told.code == 0, told.err
    assert "held_out" in told.out
    files = [photos / name / "1.png" for name in ("red", "blue")]
    classified = run("classify", *files, "--model", out, "--top", 3, "--json")
    assert classified.code == 0, classified.err
    assert [answer["predictions"][0]["label"] for answer in classified.json] == ["red", "blue"]
    assert sum(guess["probability"] for guess in classified.json[0]["predictions"]) == pytest.approx(
        1, abs=1e-5
    )
    assert all(-1.001 <= guess["similarity"] <= 1.001 for guess in classified.json[0]["predictions"])
    for command in (
        ("classify", *files, "--labels", "a red thing,a blue thing", "--model", out),
        ("evaluate", "labels", "--model", out, "--data", photos),
        ("evaluate", "zero-shot", "--model", out, "--data", photos),
        ("index", photos, "--index", tmp_path / "index", "--model", out),
        ("search", "red", "--index", tmp_path / "index"),
        ("verify", out / "model"),
        ("report", out),
    ):
        told = run(*command)
        assert told.code == 0, (command, told.err)


def test_a_model_without_classes_asks_for_them(run: Run, tiny: Path, photos: Path) -> None:
    told = run("classify", photos / "red" / "1.png", "--model", tiny)
    assert told.code == 2
    assert "has no classes of its own; give the classes by --labels" in told.err


def test_the_recipe_that_is_shown_is_the_one_that_train_runs(
    run: Run, tiny: Path, photos: Path, tmp_path: Path
) -> None:
    shown = run("finetune", photos, "--model", tiny, *QUICK, "--dry-run")
    assert shown.code == 0, shown.err
    assert 'tasks = [{ name = "held_out", task = "labels", data = "held-out", ' in shown.out
    (tmp_path / "recipe.toml").write_text(shown.out)
    first = run("train", tmp_path / "recipe.toml", "--out", tmp_path / "first", "--device", "cpu", "--json")
    assert first.code == 0, first.err
    second = run("finetune", photos, "--model", tiny, "--out", tmp_path / "second", *QUICK, "--json")
    after = [{**told.json["after"]["held_out"], "model": ""} for told in (first, second)]
    assert after[0] == after[1]
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("first", "second")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_short_recipe_is_enough(run: Run, tiny: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(
        f"""[model]
init = {str(tiny)!r}
[data]
train = {str(photos)!r}
[training]
steps = 2
batch_size = 6
[finetune]
method = "full"
"""
    )
    told = run("train", tmp_path / "short.toml", "--out", tmp_path / "run", "--device", "cpu", "--json")
    assert told.code == 0, told.err
    assert told.json["before"] == {}
    assert run("doctor", tmp_path / "short.toml").code == 0


def test_a_sweep_tries_alphas(run: Run, tiny: Path, photos: Path, tmp_path: Path) -> None:
    shown = run(
        "finetune", photos, "--model", tiny, *QUICK, "--dry-run", "--method", "full",
        "--set", "optimizer.learning_rate=1e-2",
    )  # fmt: skip
    (tmp_path / "recipe.toml").write_text(shown.out)
    told = run(
        "sweep", tmp_path / "recipe.toml", "--grid", "finetune.alpha=0.0,1.0", "--metric", "held_out_top1",
        "--out", tmp_path / "sweep", "--device", "cpu", "--json",
    )  # fmt: skip
    assert told.code == 0, told.err
    metrics = {
        trial["settings"]["finetune.alpha"]: trial["metrics"]["held_out_top1"]
        for trial in told.json["trials"]
    }
    assert metrics[1.0] > metrics[0.0]
    before = json.loads((tmp_path / "sweep" / "trial-0000" / "finetune.json").read_text())["before"]
    assert metrics[0.0] == before["held_out"]["metrics"]["top1"]


def test_a_learning_rate_of_1_never_leaves_a_checkpoint_that_is_not_finite(
    run: Run, tiny: Path, photos: Path, tmp_path: Path
) -> None:
    for method in ("full", "wise-ft", "flyp"):
        out = tmp_path / method
        told = run(
            "finetune", photos, "--model", tiny, "--out", out, "--method", method, *QUICK,
            "--set", "optimizer.learning_rate=1.0", "--set", "training.steps=20",
        )  # fmt: skip
        assert told.code in (0, 1), told.err
        assert "Traceback" not in told.err
        if told.code:
            assert "learning rate" in told.err or "learning_rate" in told.err
        files = list(out.rglob("*.safetensors"))
        assert files
        for file in files:
            assert all(
                torch.isfinite(value).all() for value in load_file(file).values() if value.is_floating_point()
            )


def test_two_pictures_in_all_train_and_nothing_is_claimed_of_them(
    run: Run, tiny: Path, tmp_path: Path
) -> None:
    for name, colour in (("cat", (200, 0, 0)), ("dog", (0, 0, 200))):
        (tmp_path / "two" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20), colour).save(tmp_path / "two" / name / "1.png")
    told = run(
        "finetune", tmp_path / "two", "--model", tiny, "--out", tmp_path / "run", "--keep", "none", "--device", "cpu",
    )  # fmt: skip
    assert told.code == 0, told.err
    assert "too few images to hold any out" in told.err
    answer = run("classify", tmp_path / "two" / "cat" / "1.png", "--model", tmp_path / "run", "--json")
    assert {guess["label"] for guess in answer.json[0]["predictions"]} == {"cat", "dog"}


def test_wrong_data_and_wrong_options_say_what_to_do(
    run: Run, tiny: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text(
        "image,label\n"
        + "\n".join(f"{photos / 'red' / f'{n}.png'},{label}" for n, label in enumerate(("Cat", "cat", "dog")))
    )
    for arguments, code, words in (
        ((tmp_path / "labels.csv",), 1, "differ in case"),
        ((photos, "--alpha", "2"), 2, "share of the fine-tuned weights"),
        ((tmp_path / "nowhere",), 1, "no such file or folder"),
        ((photos, "--several", "--method", "flyp"), 1, "several labels"),
    ):
        told = run("finetune", *arguments, "--model", tiny, "--out", tmp_path / "run", "--keep", "none")
        assert told.code == code, told.err
        assert words in told.err
    assert not (tmp_path / "run").exists()


def test_the_three_commands_of_a_first_time_user_serve_a_classifier(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "photos", of_each=20)
    text = (Path(__file__).parents[2] / "docs" / "finetuning.md").read_text()
    block = re.search(r"```bash\n(diptych finetune.*?)```", text, re.DOTALL)
    assert block is not None
    first, second, third = (line.split() for line in block[1].strip().splitlines())
    # A shorter run of the same: the whole takes a minute.
    told = run(*first[1:], "--keep", "none", "--set", "training.steps=8")
    assert told.code == 0, told.err
    told = run(*second[1:])
    assert told.code == 0, told.err
    assert third[:2] == ["diptych", "serve"]
    with served(third[1:]) as url:
        for name in ("red", "green", "blue"):
            picture = base64.b64encode((tmp_path / "photos" / name / "0.png").read_bytes()).decode()
            question = urllib.request.Request(
                f"{url}/v1/classify",
                json.dumps({"images": [picture], "top": 1}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(question, timeout=60) as answer:
                (result,) = json.load(answer)["results"]
            assert [guess["label"] for guess in result["predictions"]] == [name]


@contextlib.contextmanager
def served(arguments: list[str]) -> Iterator[str]:
    """The address of `diptych ARGUMENTS` on a free port."""
    command = [sys.executable, "-m", "diptych.cli", *arguments, "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                found = re.search(r"is served at (\S+)", line)
                if found is not None:
                    yield found[1]
                    return
            raise AssertionError(f"the server did not start: {''.join(said)}")
        finally:
            process.terminate()


def test_the_result_of_a_far_too_high_learning_rate_is_the_start(
    run: Run, tiny: Path, photos: Path, tmp_path: Path
) -> None:
    # The probe is right about every picture: no step can be better.
    told = run(
        "finetune", photos, "--model", tiny, "--out", tmp_path / "run", "--method", "lp-ft", *QUICK,
        "--set", "optimizer.learning_rate=1.0", "--json",
    )  # fmt: skip
    assert told.code == 0, told.err
    assert "no step is better than the start" in told.err
    assert "A lower optimizer.learning_rate than 1 may help" in told.err
    assert told.json["step"] == 0
    after, start = told.json["after"]["held_out"], told.json["start"]["held_out"]
    assert after == {**start, "model": after["model"]}
    assert told.json["before"] != told.json["start"]
    start, result = (load_file(tmp_path / "run" / name / "model.safetensors") for name in ("start", "model"))
    assert all(torch.equal(value, result[name]) for name, value in start.items())


def test_after_pairs_the_last_line_names_commands_that_work(run: Run, tiny: Path, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "classes")
    (tmp_path / "pairs").mkdir()
    for file in source.rglob("*.png"):
        name = f"{file.parent.name}{file.stem}"
        file.rename(tmp_path / "pairs" / f"{name}.png")
        (tmp_path / "pairs" / f"{name}.txt").write_text(f"a {file.parent.name} square")
    out = tmp_path / "run"
    told = run("finetune", tmp_path / "pairs", "--model", tiny, "--out", out, *QUICK)
    assert told.code == 0, told.err
    last = told.out.strip().splitlines()[-1]
    command = re.search(r'diptych (classify) IMAGE (--labels) "(cat,dog)" (--model) (\S+?),', last)
    assert command is not None, last
    image = next((tmp_path / "pairs").glob("*.png"))
    verb, *options = command.groups()
    assert run(verb, image, *options).code == 0
    loaded, _ = diptych.load(out, device="cpu")  # the folder of the run, as on the command line
    assert loaded.classifier is None
