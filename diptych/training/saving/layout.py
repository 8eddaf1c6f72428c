"""What lies where in the folder of a run; `engine.py` says what each is."""

from pathlib import Path

from diptych.errors import SettingsError

RECIPE = "recipe.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
MODEL = "model"
AVERAGE = "model-ema"
BEST = "model-best"
HELD_OUT = "held-out"  # data of an evaluation: what [data] validation keeps from training
START = "start"  # what fine-tuning starts from
TUNED = "tuned"  # its end, where the result lies between both
RESULTS = (MODEL, AVERAGE, BEST)


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return the folder of the checkpoint after `step` optimizer steps."""
    return run / CHECKPOINTS / f"step-{step:08d}"


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted((run / CHECKPOINTS).glob("step-*"))


def refuse_other_files(run: Path) -> None:
    """Raise `SettingsError` where a run would begin in a folder that holds anything but the start of one."""
    if run.exists() and any(not file.name.startswith(".") and file.name != START for file in run.iterdir()):
        raise SettingsError(f"{run}: is a folder with other files; name a new folder with --out")
