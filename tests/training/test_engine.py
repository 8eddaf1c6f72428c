"""The loop itself: runs that are stopped and resumed, damaged checkpoints, refusals, what is learned."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from diptych.errors import CheckpointError, SettingsError
from diptych.training.engine import train
from diptych.training.recipes import load_recipe, path
from diptych.training.saving.layout import checkpoints
from diptych.training.saving.saver import Saver
from diptych.training.settings import Recipe

TINY = (
    "model.architecture.embed_dim=16",
    "model.architecture.image={resolution=32, patch=16, width=32, layers=1, heads=2}",
    "model.architecture.text={width=32, layers=1, heads=2, context_length=16, embedding_width=8}",
    "training.batch_size=8",
    'training.precision="float32"',
    "schedule.warmup_steps=2",
)


@pytest.fixture(autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(samples: int, *more: str) -> Recipe:
    return load_recipe("sample", (*TINY, f"training.samples={samples}", *more))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def steps_of(run: Path) -> list[int]:
    """Of its checkpoints."""
    return [int(folder.name[-8:]) for folder in checkpoints(run)]


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare the weights of two runs of a few steps of Adam that sum float32 gradients in another order.

    The sums differ by 2e-7 a step at first, times the factor by which Adam magnifies the smallest gradients.
    """
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5)


def test_a_run_killed_at_any_moment_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    recipe = ("checkpoint.every_steps=3",)
    script = textwrap.dedent(
        """
        import os, signal, sys, torch
        torch.set_num_threads(1)
        from diptych.training import engine
        from diptych.training.recipes import load_recipe
        run, kill, *settings = sys.argv[1:]
        step = engine.training_step
        calls = 0
        def counted(*args, **kwargs):
            global calls
            calls += 1
            if calls == int(kill):
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*args, **kwargs)
        engine.training_step = counted
        engine.train(load_recipe("sample", tuple(settings)), run, resume=os.path.exists(run))
        """
    )
    settings = [*TINY, *recipe, "training.samples=112"]

    def start(run: Path, kill: int) -> int:
        command = [sys.executable, "-c", script, str(run), str(kill), *settings]
        return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode

    assert start(tmp_path / "whole", 99) == 0
    # Stops before the 5th step, then before the 7th: each goes back to the last checkpoint.
    for kill in (5, 4):
        assert start(tmp_path / "cut", kill) == -signal.SIGKILL
    assert start(tmp_path / "cut", 99) == 0
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert lines(tmp_path / "whole")[-1]["loss"] == lines(tmp_path / "cut")[-1]["loss"]


def test_an_interrupt_ends_the_step_saves_and_the_run_goes_on(tmp_path: Path) -> None:
    def interrupt(_: torch.nn.Module, __: object) -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return {}

    once = ("evaluation.every_steps=3",)
    train(tiny(64, *once), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tiny(64, *once), tmp_path / "cut", evaluate=interrupt)
    assert [folder.name for folder in checkpoints(tmp_path / "cut")] == ["step-00000003"]
    assert train(tiny(64, *once), tmp_path / "cut", resume=True).step == 8
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    train(tiny(32), tmp_path / "a")
    train(tiny(32), tmp_path / "b")
    train(tiny(32, "training.seed=1"), tmp_path / "c")
    assert_equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not torch.equal(weights(tmp_path / "a")["logit_scale"], weights(tmp_path / "c")["logit_scale"])


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(tiny(64, "checkpoint.every_steps=2"), run)
    newest = checkpoints(run)[-1]
    assert newest.name == "step-00000008"
    file = newest / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    result = train(tiny(64, "checkpoint.every_steps=2"), run, resume=True)
    assert result.step == 8
    # A run that is done already says again what it came to.
    assert train(tiny(64, "checkpoint.every_steps=2"), run, resume=True).loss == result.loss
    assert "damaged" in capsys.readouterr().err


def test_no_whole_checkpoint_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(16), run)
    for folder in checkpoints(run):
        (folder / "diptych.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is whole"):
        train(tiny(16), run, resume=True)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    train(tiny(80, "checkpoint.every_steps=1", "checkpoint.keep=3"), tmp_path / "run")
    assert [folder.name[-2:] for folder in checkpoints(tmp_path / "run")] == ["08", "09", "10"]


@pytest.mark.parametrize("prunes", [True, False])
def test_a_finished_run_whose_last_save_was_killed_before_it_deleted_keeps_as_many_as_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prunes: bool
) -> None:
    """As after a kill between the name of the last checkpoint and the end of the oldest: nothing is saved any more.

    The twin that does not look at a start leaves one too many.
    """
    run, recipe = tmp_path / "run", tiny(40, "checkpoint.every_steps=1")
    with monkeypatch.context() as context:
        context.setattr(Saver, "_delete_old", lambda _: None)
        train(recipe, run)
    for folder in checkpoints(run)[:2]:
        shutil.rmtree(folder)
    assert steps_of(run) == [3, 4, 5]
    if not prunes:
        monkeypatch.setattr(Saver, "_delete_old", lambda _: None)
    assert train(recipe, run, resume=True).step == 5
    assert steps_of(run) == ([4, 5] if prunes else [3, 4, 5])


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    train(tiny(16), tmp_path / "run")
    with pytest.raises(SettingsError, match="--resume"):
        train(tiny(16), tmp_path / "run")
    with pytest.raises(SettingsError, match=r"training\.samples was "):
        train(tiny(24), tmp_path / "run", resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(SettingsError, match="other files"):
        train(tiny(16), tmp_path / "other")


def test_a_model_learns_the_names_of_eight_colours(tmp_path: Path) -> None:
    names = ("red", "green", "blue", "yellow", "black", "white", "gray", "purple")
    pictures = tmp_path / "colours"
    pictures.mkdir()
    for name in names:
        Image.new("RGB", (32, 32), name).save(pictures / f"{name}.png")
        (pictures / f"{name}.txt").write_text(name)
    words = "model.architecture.text={width=32, context_length=16}"
    plain = (f"data.train={pictures}", "augmentation={name='none'}", "optimizer.learning_rate=1e-2", words)
    train(tiny(8 * 60, *plain), tmp_path / "run")
    first, last = lines(tmp_path / "run")[0], lines(tmp_path / "run")[-1]
    # Chance is ln 8 = 2.08 and one in eight.
    assert last["loss"] < 0.3
    assert last["accuracy"] == 1.0
    assert first["learning_rate"] > last["learning_rate"]


def test_evaluation_runs_at_its_steps_in_evaluation_mode(tmp_path: Path) -> None:
    modes: list[bool] = []

    def evaluate(model: torch.nn.Module, _: object) -> dict[str, float]:
        modes.append(model.training)
        return {"top1": len(modes) / 10}

    train(tiny(40, "evaluation.every_steps=2"), tmp_path / "run", evaluate=evaluate)
    assert modes == [False, False, False]
    assert [line["top1"] for line in lines(tmp_path / "run") if "top1" in line] == [0.1, 0.2, 0.3]


def test_the_length_that_is_asked_for_takes_the_place_of_the_recipes() -> None:
    assert load_recipe("sample", ("training.steps=7",)).training.total_steps == 7
    assert load_recipe("sample", ("training.samples=1280",)).training.total_steps == 10
    with pytest.raises(SettingsError, match="either steps or samples"):
        load_recipe("sample", ("training.steps=7", "training.samples=1280"))


def test_shipped_recipes_can_be_read() -> None:
    for name in ("sample", "corpus", "vit-b-32"):
        recipe = load_recipe(str(path(name)))
        assert recipe.model.resolve().embed_dim > 0
        assert recipe.schedule.warmup_steps < recipe.training.total_steps


def test_unknown_recipe_names_and_settings_name_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'sample'"):
        load_recipe("sampel")
    with pytest.raises(SettingsError, match="did you mean 'learning_rate'"):
        load_recipe("sample", ("optimizer.lerning_rate=1",))
