"""Whole runs on several processes: the same run as on one, whatever number of processes goes on with it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diptych.training.engine import train
from tests.processes import run_processes
from tests.training.test_engine import assert_near, lines, one_thread, tiny, weights  # noqa: F401 (a fixture)

STEPS = 6
AVERAGED = "training.ema=0.9"
SAMPLES = 7 * STEPS


def settings(way: str, *more: str) -> list[str]:
    return [
        "training.batch_size=7",  # uneven shares
        "checkpoint.every_steps=2",
        "checkpoint.keep=5",
        f"training.distributed={way}",
        *more,
    ]


SCRIPT = """
import json, sys
import torch
torch.set_num_threads(1)
from diptych.training.engine import train
from tests.training.test_distributed_runs import SAMPLES
from tests.training.test_engine import tiny
out, resume, stop, *settings = sys.argv[1:]

def evaluate(model, preprocess):
    if int(stop):
        import signal
        signal.raise_signal(signal.SIGTERM)
    return {"top1": 0.5}

try:
    train(tiny(SAMPLES, *settings), out, resume=resume == "resume", evaluate=evaluate)
except KeyboardInterrupt as error:
    sys.exit(error.exit_code)
"""


def run(size: int, out: Path, start: str, more: list[str], stop: int = 0) -> list[int]:
    ended = run_processes(size, ["-c", SCRIPT, str(out), start, str(stop), *more])
    codes = [code for code, _, _ in ended]
    assert all(code in {0, 143} for code in codes), "\n".join(errors for _, _, errors in ended)[-6000:]
    return codes


def averages(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model-ema" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("alone") / "run"
    train(tiny(SAMPLES, *settings("ddp", AVERAGED)), out)
    torch.set_num_threads(before)
    return out


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_processes_change_nothing_and_may_change_at_a_resume(alone: Path, tmp_path: Path, way: str) -> None:
    out = tmp_path / "run"
    stopping = settings(way, AVERAGED, "evaluation.every_steps=3")
    # SIGTERM at the third step: every process stops there, and the run is saved.
    assert run(2, out, "start", stopping, stop=1) == [143, 143]
    assert run(3, out, "resume", stopping) == [0, 0, 0]
    mine, whole = lines(out), lines(alone)
    assert mine[-1]["step"] == whole[-1]["step"] == STEPS
    assert mine[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=1e-4)
    assert mine[-1]["accuracy"] == pytest.approx(whole[-1]["accuracy"], abs=1e-6)
    for tensors in (weights, averages):
        assert_near(tensors(out), tensors(alone))
    # One process goes on from what three have left, and has nothing to do.
    result = train(tiny(SAMPLES, *stopping), out, resume=True)
    assert result.step == STEPS


def test_a_checkpoint_of_shards_has_the_moments_of_the_whole(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(2, out, "start", settings("fsdp", AVERAGED))
    state = load_file(alone / "checkpoints" / f"step-{STEPS:08d}" / "state.safetensors")
    from diptych.weights.checkpoint import load_state  # noqa: PLC0415

    sharded, values = load_state(out / "checkpoints" / f"step-{STEPS:08d}")
    assert values["step"] == STEPS
    assert state.keys() == sharded.keys()
    assert_near(sharded, state)
    assert averages(out).keys() == weights(alone).keys()
    assert json.loads((out / "model-ema" / "diptych.json").read_text())["kind"] == "clip"
