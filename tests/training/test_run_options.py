"""What a recipe can ask of the engine: chunks, precision, averages, guards."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diptych.errors import NotFiniteError, SettingsError
from diptych.models.architectures import PUBLISHED
from diptych.models.building import build_model
from diptych.training import engine
from diptych.training.approaches import contrastive as clip_task
from diptych.training.approaches.contrastive import ClipTask
from diptych.training.engine import train
from diptych.training.planning import chunk_choice, forecast
from diptych.training.planning.forecast import fitting_chunks
from diptych.training.recipes import load_recipe
from diptych.training.saving.layout import checkpoints
from diptych.training.settings import ModelSettings
from diptych.training.starting import starting_model
from diptych.training.step import training_step
from diptych.training.towers import Chunking
from tests.training.test_engine import assert_equal, assert_near, lines, one_thread, tiny, weights  # noqa: F401 (a fixture)


def test_chunks_give_the_run_of_the_whole_batch(tmp_path: Path) -> None:
    train(tiny(32), tmp_path / "whole")
    train(tiny(32, "training.chunk=3", "training.text_chunk=2", "training.keep=1"), tmp_path / "chunks")
    assert_near(weights(tmp_path / "chunks"), weights(tmp_path / "whole"))


def test_patch_dropout_leaves_out_the_same_patches_in_both_passes(tmp_path: Path) -> None:
    half = ("training.patch_dropout=0.5",)
    train(tiny(32, *half), tmp_path / "whole")
    train(tiny(32, *half, "training.chunk=3"), tmp_path / "chunks")
    train(tiny(32), tmp_path / "all")
    dropped = weights(tmp_path / "whole")
    assert_near(weights(tmp_path / "chunks"), dropped)
    assert not torch.equal(dropped["visual.proj"], weights(tmp_path / "all")["visual.proj"])


def test_patch_dropout_of_a_resnet_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    resnet = "model.architecture.image={resolution=32, layers=[1,1,1,1], width=8, heads=4}"
    with pytest.raises(SettingsError, match="train a ViT"):
        train(tiny(32, resnet, "training.patch_dropout=0.5"), tmp_path / "run")


def test_batch_norm_learns_its_statistics_once_a_chunk(tmp_path: Path) -> None:
    resnet = "model.architecture.image={resolution=32, layers=[1,1,1,1], width=8, heads=4}"
    train(tiny(32, resnet, "training.chunk=4"), tmp_path / "run")
    # Four steps of two chunks; a second pass that learned as well would count sixteen.
    assert weights(tmp_path / "run")["visual.bn1.num_batches_tracked"].item() == 8


def test_every_memory_option_together_still_learns_and_resumes_exactly(tmp_path: Path) -> None:
    options = (
        "training.precision=bfloat16",
        "training.recompute=true",
        "training.chunk=4",
        "training.ema=0.5",
        "optimizer.moments=bfloat16",
        "optimizer.layer_decay=0.8",
        "checkpoint.every_steps=2",
    )

    def interrupt(model: object, preprocess: object) -> dict[str, float]:
        raise KeyboardInterrupt

    train(tiny(48, *options), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tiny(48, *options, "evaluation.every_steps=3"), tmp_path / "cut", evaluate=interrupt)
    (tmp_path / "cut" / "recipe.json").write_text((tmp_path / "whole" / "recipe.json").read_text())
    train(tiny(48, *options), tmp_path / "cut", resume=True)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    averages = [load_file(tmp_path / run / "model-ema" / "model.safetensors") for run in ("whole", "cut")]
    assert_equal(*averages)
    assert not torch.equal(averages[0]["logit_scale"], weights(tmp_path / "whole")["logit_scale"])


def test_siglip_begins_at_the_papers_temperature_and_bias() -> None:
    model, _ = starting_model(load_recipe("sample", ("objective.name=siglip",)), lambda _: None)
    assert model.logit_bias is not None
    assert model.logit_scale.item() == pytest.approx(math.log(10))
    assert model.logit_bias.item() == -10.0


def test_siglip_learns_its_bias(tmp_path: Path) -> None:
    train(tiny(64, "objective.name=siglip", "optimizer.learning_rate=1e-2"), tmp_path / "run")
    assert weights(tmp_path / "run")["logit_bias"].item() != -10.0
    assert lines(tmp_path / "run")[-1]["logit_bias"] == pytest.approx(
        weights(tmp_path / "run")["logit_bias"].item()
    )


def poisoned(steps: set[int]) -> Callable[..., Any]:
    """`training_step` whose loss is not a number at those calls."""
    calls = 0
    loss = ClipTask.loss

    def run(task: ClipTask, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        bad = calls in steps
        task.loss = (  # type: ignore[method-assign]
            lambda *sides: (
                (loss(task, *sides)[0] * math.nan, loss(task, *sides)[1]) if bad else loss(task, *sides)
            )
        )
        return training_step(task, *args, **options)

    return run


def test_a_step_that_is_not_finite_updates_nothing_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resnet = "model.architecture.image={resolution=32, layers=[1,1,1,1], width=8, heads=4}"
    every = ("checkpoint.every_steps=1", "checkpoint.keep=9", resnet)
    monkeypatch.setattr(engine, "training_step", poisoned({3, 4}))
    train(tiny(48, *every), tmp_path / "run")
    two, four = (
        load_file(tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
        for step in (2, 4)
    )
    assert_equal(two, four)  # weights and batch-norm statistics
    skipped = [line for line in lines(tmp_path / "run") if line["loss"] is None]
    assert [line["step"] for line in skipped] == [3, 4]
    assert math.isfinite(lines(tmp_path / "run")[-1]["loss"])


def test_too_many_such_steps_in_a_row_end_the_run_and_leave_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "training_step", poisoned(set(range(3, 99))))
    with pytest.raises(NotFiniteError, match=r"step 6: .* 4 steps in a row"):
        train(tiny(80, "checkpoint.every_steps=2", "training.most_not_finite=3"), tmp_path / "run")
    newest = checkpoints(tmp_path / "run")[-1]
    assert all(torch.isfinite(value).all() for value in load_file(newest / "model.safetensors").values())


def test_float16_halves_its_scale_until_the_gradients_are_finite(tmp_path: Path) -> None:
    train(tiny(160, "training.precision=float16"), tmp_path / "run")
    values = json.loads((checkpoints(tmp_path / "run")[-1] / "state.json").read_text())
    assert values["loss_scale"] <= 2**16
    assert math.isfinite(values["loss"])


def test_auto_takes_the_whole_batch_where_it_fits_and_less_where_it_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clip_task, "_TILED_FROM", 2048)  # which the matrix of gradients sets for its cases
    recipe = tiny(1 << 20, f"training.batch_size={1 << 14}", 'training.chunk="auto"')
    model = build_model(recipe.model.resolve())
    monkeypatch.setattr(forecast, "free_memory", lambda _: 1 << 40)
    assert fitting_chunks(recipe, model, 64, "cpu") == Chunking()
    monkeypatch.setattr(forecast, "free_memory", lambda _: 1 << 28)
    chunking = fitting_chunks(recipe, model, 1 << 14, "cpu")
    assert chunking.images == chunking.texts
    assert chunking.images in {64, 128, 256, 512, 1024}
    monkeypatch.setattr(forecast, "free_memory", lambda _: 1 << 20)
    with pytest.raises(SettingsError, match="recompute = true"):
        fitting_chunks(recipe, model, 1 << 14, "cpu")


def test_auto_keeps_the_batch_and_its_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_choice, "fitting_chunks", lambda *_: Chunking(4, 4, 1))
    train(tiny(32), tmp_path / "whole")
    train(tiny(32, 'training.chunk="auto"'), tmp_path / "auto")
    assert json.loads((checkpoints(tmp_path / "auto")[-1] / "state.json").read_text())["chunking"] == [
        4,
        4,
        1,
    ]
    assert_near(weights(tmp_path / "auto"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_of_a_published_model_are_known_without_its_weights(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diptych.training.settings.load", None)
    assert ModelSettings(init=name).resolve() == PUBLISHED[name]
