"""What is measured while a run goes on, and which weights are kept as the best."""

import json
import math
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from diptych.config import plain
from diptych.data.images.transforms import Preprocess
from diptych.errors import DataError, SettingsError
from diptych.evaluation.tasks import Retrieval
from diptych.runs.evaluations import evaluation_of, read_tasks
from diptych.training.best import Best, best_of, lower_is_better
from diptych.training.engine import train
from diptych.training.monitor import Monitor
from diptych.training.saving.layout import checkpoint_folder
from diptych.training.saving.saver import Saver
from diptych.weights.checkpoint import read_manifest, verify_checkpoint
from tests.processes import run_processes
from tests.training.test_engine import assert_equal, lines, one_thread, tiny  # noqa: F401 (a fixture)

SCORES = (0.1, 0.3, 0.2, 0.5, 0.9, 0.4, 0.6, 0.7)
EVERY = ("evaluation.every_steps=1", "checkpoint.every_steps=1", "checkpoint.keep=99")


class Scored:
    """Metrics with their extremes in the middle of a run of eight steps.

    A function of the weights: those that were seen before get what they got then, as in an evaluation of a run that
    goes on.
    """

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}

    def __call__(self, model: torch.nn.Module, _: object) -> dict[str, float]:
        digest = zlib.crc32(model.state_dict()["text.text_projection"].numpy().tobytes())
        if digest not in self._seen:
            self._seen[digest] = SCORES[len(self._seen)]
        score = self._seen[digest]
        return {"score": score, "median_rank": 1 / score}


def kept(run: Path) -> dict[str, Any]:
    """What `model-best` says of itself."""
    verify_checkpoint(run / "model-best")
    said: dict[str, Any] = read_manifest(run / "model-best").history[-1]
    return said


def tensors(folder: Path, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(folder / file)


@pytest.mark.parametrize(("metric", "choose"), [("score", max), ("median_rank", min)])
def test_the_best_is_the_first_extreme_of_the_log_with_the_weights_of_that_step(
    tmp_path: Path, metric: str, choose: Any
) -> None:
    run = tmp_path / "run"
    result = train(tiny(64, *EVERY, f"evaluation.best={metric}"), run, evaluate=Scored())
    log = {line["step"]: line[metric] for line in lines(run)}
    assert len(log) == 8
    step = choose(log, key=lambda step: log[step])
    assert step == 5
    assert kept(run) == {
        "what": "kept as the best of its run",
        "metric": metric,
        "step": step,
        "value": log[step],
    }
    assert result.best == Best(metric, step, log[step])
    assert_equal(tensors(run / "model-best"), tensors(checkpoint_folder(run, step)))


def test_the_averaged_weights_are_what_is_measured_and_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(64, *EVERY, "evaluation.best=score", "training.ema=0.5"), run, evaluate=Scored())
    state = tensors(checkpoint_folder(run, kept(run)["step"]), "state.safetensors")
    averages = {name.removeprefix("ema."): value for name, value in state.items() if name.startswith("ema.")}
    assert_equal(tensors(run / "model-best"), averages)
    assert not torch.equal(averages["logit_scale"], tensors(run / "model")["logit_scale"])


def test_a_run_that_was_killed_after_a_best_and_before_a_checkpoint_ends_with_the_same_best(
    tmp_path: Path,
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    recipe = tiny(64, *EVERY, "evaluation.best=score")
    evaluate = Scored()
    train(recipe, whole, evaluate=evaluate)
    for last in (1, 4, 5, 8):
        # With the log and the best of the steps after `last`, whose checkpoints were never written.
        shutil.copytree(whole, cut)
        for step in range(last + 1, 9):
            shutil.rmtree(checkpoint_folder(cut, step))
        result = train(recipe, cut, resume=True, evaluate=evaluate)
        assert kept(cut) == kept(whole)
        assert result.best == Best("score", 5, 0.9)
        assert_equal(tensors(cut / "model-best"), tensors(whole / "model-best"))
        assert [line["score"] for line in lines(cut)] == [line["score"] for line in lines(whole)]
        shutil.rmtree(cut)


def test_a_best_that_is_lost_is_said_and_the_next_evaluation_is_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, recipe = tmp_path / "run", tiny(64, *EVERY, "evaluation.best=score")
    evaluate = Scored()
    train(recipe, run, evaluate=evaluate)
    shutil.rmtree(run / "model-best")
    for step in (7, 8):
        shutil.rmtree(checkpoint_folder(run, step))
    capsys.readouterr()
    train(recipe, run, resume=True, evaluate=evaluate)
    assert "the best so far is lost" in capsys.readouterr().err
    assert (kept(run)["step"], kept(run)["value"]) == (8, 0.7)


def test_a_checkpoint_comes_after_the_best_that_it_knows_of_and_after_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    save, sync = Saver.save, Monitor.sync

    def noted_save(saver: Saver, folder: Path, snapshot: Any) -> None:
        order.append(folder.name)
        save(saver, folder, snapshot)

    def noted_sync(monitor: Monitor) -> None:
        order.append("log")
        sync(monitor)

    monkeypatch.setattr(Saver, "save", noted_save)
    monkeypatch.setattr(Monitor, "sync", noted_sync)
    train(tiny(16, *EVERY, "evaluation.best=step"), tmp_path / "run", evaluate=counting())
    assert order == ["model-best", "log", "step-00000001", "model-best", "log", "step-00000002"]


def counting() -> Any:
    """A metric that grows with each evaluation."""
    calls = iter(range(99))
    return lambda model, preprocess: {"step": float(next(calls))}


def test_what_a_checkpoint_has_passed_is_in_the_event_files_of_a_run_that_is_killed(tmp_path: Path) -> None:
    from rich.console import Console  # noqa: PLC0415
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    with Monitor(tmp_path, 9, 0, 1.0, Console(quiet=True)) as monitor:
        monitor.record(1, {"loss": 2.0})
        monitor.sync()
        # As a reader sees the file while the run goes on, which is what a kill leaves.
        events = EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0)]


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("zero_shot_top1", False),
        ("recall_image_to_text_r10", False),
        ("recall_text_to_image_median_rank", True),
        ("loss", True),
        ("zero_shot_tied", True),
        ("zero_shot_roc_auc", False),
    ],
)
def test_ranks_losses_and_ties_are_best_when_they_are_small(metric: str, lower: bool) -> None:
    assert lower_is_better(metric) == lower


def test_of_equal_values_the_first_is_the_best_and_what_is_no_number_never_is() -> None:
    curve = [(1, math.nan), (2, 0.5), (3, math.inf), (4, 0.75), (5, 0.75), (6, 0.1)]
    assert best_of("top1", curve) == Best("top1", 4, 0.75)
    assert best_of("loss", curve) == Best("loss", 6, 0.1)
    assert best_of("top1", [(1, math.nan)]) is None


TASKS = (
    'evaluation.tasks=[{name="names", task="zero-shot", data="PLACE"}, '
    '{name="recall", task="retrieval", data="PLACE"}]'
)


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    """Two evaluations of 21 different pictures with a class and a caption each."""
    table = ["image,label,caption"]
    for number, pixels in enumerate(
        np.random.default_rng(0).integers(256, size=(21, 8, 8, 3), dtype=np.uint8)
    ):
        Image.fromarray(pixels).resize((32, 32)).save(tmp_path / f"{number}.png")
        table.append(f"{number}.png,{('cat', 'dog', 'owl')[number % 3]},picture number {number}")
    (tmp_path / "labelled.csv").write_text("\n".join(table))
    return TASKS.replace("PLACE", str(tmp_path / "labelled.csv"))


def test_an_unknown_metric_is_an_error_before_the_first_step_that_names_the_nearest(tasks: str) -> None:
    with pytest.raises(SettingsError, match="did you mean 'names_top1'"):
        evaluation_of(tiny(16, tasks, "evaluation.best=name_top1"))
    assert evaluation_of(tiny(16, tasks, "evaluation.best=recall_text_to_image_median_rank")) is not None


def test_data_that_cannot_be_evaluated_are_an_error_before_the_first_step(tasks: str, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "flat" / "a.png")
    with pytest.raises(DataError, match="has no label"):
        evaluation_of(tiny(16, tasks.replace("labelled.csv", "flat")))


def test_a_best_of_nothing_is_an_error_before_the_first_step(tmp_path: Path) -> None:
    recipe = tiny(16, "evaluation.best=top1")
    with pytest.raises(SettingsError, match=r"nothing is evaluated; add \[\[evaluation.tasks\]\]"):
        train(recipe, tmp_path / "run", evaluate=evaluation_of(recipe))


def test_a_best_that_an_evaluation_of_ones_own_lacks_is_an_error_that_names_the_nearest(
    tmp_path: Path,
) -> None:
    with pytest.raises(SettingsError, match="did you mean 'score'"):
        train(tiny(16, "evaluation.best=scor"), tmp_path / "run", evaluate=Scored())


def test_two_tasks_of_one_name_are_an_error(tasks: str) -> None:
    with pytest.raises(SettingsError, match="two tasks have the name 'names'"):
        tiny(16, tasks.replace("recall", "names"))


PROBES = (
    'evaluation.tasks=[{name="probe", task="linear-probe", data="PLACE", train="PLACE", metric="mean_per_class"}, '
    '{name="shots", task="few-shot", data="PLACE", train="PLACE", shots=[1, 3], seeds=2}]'
)


def probes(tasks: str) -> str:
    return PROBES.replace("PLACE", tasks.split('data="')[1].split('"', maxsplit=1)[0])


@pytest.mark.parametrize("best", ["probe_mean_per_class", "shots_top1_3_shot"])
def test_probes_are_logged_on_the_way_and_choose_the_best(tasks: str, tmp_path: Path, best: str) -> None:
    run, recipe = tmp_path / "run", tiny(16, *EVERY, probes(tasks), f"evaluation.best={best}")
    result = train(recipe, run, evaluate=evaluation_of(recipe))
    names = {"probe_mean_per_class", "probe_top1", "probe_top5", "shots_top1_1_shot", "shots_top1_3_shot"}
    assert [names <= line.keys() for line in lines(run)] == [True, True]
    log = {int(line["step"]): line[best] for line in lines(run)}
    assert result.best == best_of(best, log.items())
    assert kept(run)["metric"] == best
    assert log[2] > 1 / 3  # tested on what they have learned from


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("shots=[1, 3]", "shots=[1, 8]"), "has 7 images; 8 shots need 8"),
        (("shots=[1, 3]", "shot=[1, 3]"), r"tasks\]\] 2: unknown setting 'shot'; did you mean 'shots'"),
        (("seeds=2", "seeds='two'"), r"tasks\]\] 2 seeds: expected int, found 'two'"),
        (("few-shot", "few-shots"), "task 'few-shots': did you mean 'few-shot'"),
        ((' train="', ' where={name=["x"]}, train="'), "no row with name in x"),
    ],
)
def test_a_probe_that_cannot_be_measured_ends_the_run_before_its_first_step(
    tasks: str, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    run, recipe = tmp_path / "run", tiny(16, probes(tasks).replace(*change))
    with pytest.raises((SettingsError, DataError), match=said):
        train(recipe, run, evaluate=evaluation_of(recipe))
    assert not run.exists()


def test_a_rehearsal_of_probes_decodes_a_few_images_and_reads_all_labels(
    tasks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def counted(preprocess: Preprocess, image: Any) -> torch.Tensor:
        decoded.append(image)
        return torch.zeros(3, preprocess.resolution, preprocess.resolution)

    monkeypatch.setattr(Preprocess, "__call__", counted)
    evaluation_of(tiny(16, probes(tasks)))
    assert len(decoded) == 2 * 16  # of 2 * 42


def test_a_resolved_recipe_says_of_its_tasks_what_it_said_before_they_had_settings_of_their_own(
    tasks: str,
) -> None:
    """So that runs and sweeps that were started then go on."""
    said = plain(tiny(16, tasks))["evaluation"]["tasks"]
    place = tasks.split('data="')[1].split('"', maxsplit=1)[0]
    assert said == [
        {"name": "names", "task": "zero-shot", "data": place, "label_from": "label", "where": {}},
        {"name": "recall", "task": "retrieval", "data": place, "label_from": "label", "where": {}},
    ]


def test_captions_that_are_too_long_are_cut_in_a_recipe_unless_it_says_otherwise(tasks: str) -> None:
    recall = read_tasks(tiny(16, tasks))[1]
    assert isinstance(recall, Retrieval)
    assert recall.truncate
    whole = read_tasks(tiny(16, tasks.replace('"retrieval"', '"retrieval", truncate=false')))[1]
    assert isinstance(whole, Retrieval)
    assert not whole.truncate


SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
from diptych.runs.evaluations import evaluation_of
from diptych.training.engine import train
from tests.training.test_engine import tiny
out, *settings = sys.argv[1:]
recipe = tiny(14, *settings)
train(recipe, out, evaluate=evaluation_of(recipe))
"""


@pytest.mark.parametrize(("way", "size"), [("ddp", 2), ("fsdp", 3)])
def test_several_processes_measure_what_one_does_and_keep_the_same_best(
    tmp_path: Path, tasks: str, way: str, size: int
) -> None:
    """At a learning rate of 0, so that the weights are the same to the bit; shares of the 21 pictures are uneven."""
    settings = (
        *("training.batch_size=7", "evaluation.every_steps=1", "evaluation.best=recall_image_to_text_r5"),
        *("optimizer.learning_rate=0.0", "training.ema=0.5", f"training.distributed={way}", tasks),
    )
    recipe = tiny(14, *settings)
    train(recipe, tmp_path / "one", evaluate=evaluation_of(recipe))
    ended = run_processes(size, ["-c", SCRIPT, str(tmp_path / "several"), *settings])
    assert [code for code, _, _ in ended] == [0] * size, "\n".join(error for _, _, error in ended)[-6000:]
    alone, together = lines(tmp_path / "one"), lines(tmp_path / "several")
    names = [name for name in alone[0] if name.startswith(("names_", "recall_"))]
    assert len(names) > 10
    for one, several in zip(alone, together, strict=True):
        assert {name: several[name] for name in names} == {name: one[name] for name in names}
    assert kept(tmp_path / "several") == kept(tmp_path / "one")
    # A step without change cannot beat the first one.
    assert kept(tmp_path / "one")["step"] == 1
    import diptych  # noqa: PLC0415

    model, _ = diptych.load(str(tmp_path / "several" / "model-best"))
    assert_equal(dict(model.state_dict()), tensors(tmp_path / "one" / "model-best"))


def test_half_written_files_of_a_killed_start_are_removed_at_the_next(tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tiny(16)
    train(recipe, run)
    stale = [run / ".metrics.jsonl.abc.tmp", run / ".recipe.json.def.tmp"]
    others = run / ".report.html.ghi.tmp"  # somebody may be writing it now
    for file in (*stale, others):
        file.write_text("{")
    train(recipe, run, resume=True)
    assert [file.exists() for file in (*stale, others)] == [False, False, True]
    assert json.loads((run / "recipe.json").read_text())["training"]["batch_size"] == 8
