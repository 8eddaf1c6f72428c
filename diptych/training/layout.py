"""What lies where in the folder of a run; `engine.py` says what each is."""

from pathlib import Path

CHECKPOINTS = "checkpoints"
MODEL = "model"
AVERAGE = "model-ema"
RESULTS = (MODEL, AVERAGE)


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps lies."""
    return run / CHECKPOINTS / f"step-{step:08d}"


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / CHECKPOINTS).glob("step-*"))
