"""Train with a recipe: resolve it, open its evaluations, run the engine, return the result."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from diptych.hardware import pick_device
from diptych.runs.evaluations import evaluation_of
from diptych.runs.finetune_run import finetune_recipe
from diptych.training.engine import Result
from diptych.training.engine import train as run_engine
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe


def train(
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    assignments: Sequence[str] = (),
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
) -> Result:
    """Train a model with a recipe, and measure it on the way as the recipe's `[evaluation]` says.

    The model is then in `out`/model, the log in `out`/metrics.jsonl; `diptych.load(out)` loads the model. A recipe with
    `[finetune]` fine-tunes; its figures are in `out`/finetune.json.

    Args:
        recipe: a TOML file, the name of a shipped recipe such as "sample", or resolved settings.
        out: the folder of the run.
        assignments: "section.key=value" each, in place of what the file says, as `--set` takes them.
        resume: go on with the run in `out`, from its newest whole checkpoint.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps", as for `load`.
        console: where progress is printed; stderr if None.

    Returns:
        The last `step`, the `samples` seen, the `loss` of the last step, `samples_per_second`, the folder of the model
        (`checkpoint`), the `best` evaluation if the recipe names a metric, and what was `left_out` of the data.

    Raises:
        SettingsError: the recipe has an unknown or unusable setting, or `out` holds a run and `resume` is False.
        DataError: the training or evaluation data cannot be read.
        NotFiniteError: the loss was not a number for several steps in a row.

    Example:
        >>> import diptych
        >>> run = diptych.train("sample", "runs/first", assignments=["training.samples=256"], device="cpu")
        >>> run.step, run.samples
        (2, 256)
        >>> model, preprocess = diptych.load("runs/first")
    """
    settings = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), tuple(assignments))
    chosen = pick_device(device)
    if settings.finetune is not None:
        return finetune_recipe(settings, out, resume=resume, device=chosen, console=console).result
    evaluate = evaluation_of(settings)
    return run_engine(settings, out, resume=resume, device=chosen, evaluate=evaluate, console=console)
