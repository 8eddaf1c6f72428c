"""Check a recipe: its settings, its evaluations, its data, and what its run will take."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from diptych.data.sources.opening import open_source
from diptych.doctor.caption_checks import guessing_text
from diptych.doctor.check import Check
from diptych.doctor.data_checks import data_checks
from diptych.doctor.forecast_checks import forecast_checks
from diptych.errors import DiptychError
from diptych.hardware import has_native_bfloat16
from diptych.pretrained import available_models
from diptych.runs.evaluations import evaluation_of, open_tasks
from diptych.training.feeding import open_examples
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe
from diptych.training.starting import with_classes
from diptych.weights.named_models import repository
from diptych.weights.naming import split_name

# Peak learning rates of AdamW outside of which CLIP models are not trained: the paper's are 3.6e-4 to 5e-4, the
# highest that learned anything here was 1e-2 on a model of a few thousand parameters.
LEARNING_RATES = (1e-7, 3e-2)


def check_recipe(
    location: str, assignments: Sequence[str] = (), *, device: str = "cpu", out: Path | None = None
) -> Iterator[Check]:
    """Check a recipe before time is spent, and yield each result as soon as it is there.

    A check that needs what an earlier one did not find is left out.

    Args:
        location: a TOML file, or the name of a shipped recipe.
        assignments: "section.key=value" each, in place of what the recipe says.
        device: where the run would be, such as "cpu" or "cuda".
        out: its folder, for the space on its disk; the working folder if None.
    """
    try:
        recipe = load_recipe(location, tuple(assignments))
        recipe.model.resolve()
    except DiptychError as error:
        yield Check("recipe", "fail", str(error))
        return
    yield Check("recipe", "ok", f"{location}: every setting is known")
    yield _start(recipe)
    yield _precision(recipe, device)
    yield _learning_rate(recipe)
    yield _warmup(recipe)
    yield _evaluation(recipe)
    try:
        source, weights = open_examples(recipe.data)
        recipe = with_classes(recipe)
    except DiptychError as error:
        yield Check("data", "fail", str(error))
        yield from forecast_checks(recipe, device, out, None, np.zeros(0))
        return
    yield from data_checks(recipe, source, weights)
    yield from forecast_checks(recipe, device, out, source, weights)


def _start(recipe: Recipe) -> Check:
    init = recipe.model.init
    place = init if init == "scratch" else split_name(init)[0]
    try:
        named = place in available_models() or repository(place) is not None
    except DiptychError as error:
        return Check("start", "fail", f"[model] init: {error}")
    if place == "scratch" or named or Path(place).exists():
        return Check("start", "ok", "from scratch" if init == "scratch" else f"from {init}")
    return Check(
        "start",
        "fail",
        f"[model] init {init!r}: no such file or folder, and no published name; "
        'expected "scratch", a checkpoint, or a name that `diptych models` lists',
    )


def _precision(recipe: Recipe, device: str) -> Check:
    precision = recipe.training.precision
    if precision == "bfloat16" and not has_native_bfloat16(device):
        other = "float16" if device.startswith("cuda") else "float32"
        return Check(
            "precision",
            "warn",
            f'{device} does not compute in bfloat16, only imitates it; set training.precision = "{other}", '
            "which is faster here",
        )
    if precision == "float16" and device == "cpu":
        better = "bfloat16" if has_native_bfloat16(device) else "float32"
        return Check(
            "precision",
            "warn",
            f'float16 is for GPUs and slow on this CPU; set training.precision = "{better}"',
        )
    return Check("precision", "ok", f"{precision} on {device}")


def _learning_rate(recipe: Recipe) -> Check:
    rate = recipe.optimizer.learning_rate
    known = guessing_text(recipe)
    guessing = f"the loss would stay {'where it starts' if known is None else f'at {known}'}"
    low, high = LEARNING_RATES
    if not rate > 0:
        return Check(
            "learning rate", "fail", f"{rate:g}: nothing is learned, {guessing}; set optimizer.learning_rate"
        )
    if rate < low:
        return Check(
            "learning rate", "warn", f"{rate:g} is next to nothing: {guessing}; the paper's ViT-B/32 has 5e-4"
        )
    if rate > high:
        return Check(
            "learning rate",
            "warn",
            f"{rate:g} breaks most models in the first steps, after which {guessing}; the paper's ViT-B/32 has 5e-4",
        )
    return Check("learning rate", "ok", f"{rate:g} at its peak")


def _warmup(recipe: Recipe) -> Check:
    warmup, steps = recipe.schedule.warmup_steps, recipe.training.total_steps
    detail = f"{warmup:,} of {steps:,} steps"
    if warmup >= steps:
        return Check(
            "warm-up",
            "warn",
            f"{detail}: the learning rate never reaches its peak; set schedule.warmup_steps near {max(1, steps // 20)}",
        )
    return Check("warm-up", "ok", detail)


def _evaluation(recipe: Recipe) -> Check:
    tasks = recipe.evaluation.tasks
    best = recipe.evaluation.best
    if not tasks and best is not None:
        return Check("evaluation", "fail", f"best = {best!r}: nothing is evaluated; add [[evaluation.tasks]]")
    captions = recipe.evaluation.captions
    if not tasks and captions is None:
        suits = "".join(
            f"; `diptych evaluate {task}` suits the model" for task in recipe.approach.evaluations[:1]
        )
        return Check("evaluation", "ok", f"no tasks: only the loss will be recorded{suits}")
    try:
        counts = [f"{name}: {len(job.sources[0]):,} rows" for name, job in open_tasks(recipe).items()]
        if captions is not None:
            counts.append(f"captions: {len(open_source(captions)):,} rows")
        evaluation_of(recipe)
    except DiptychError as error:
        return Check("evaluation", "fail", str(error))
    every, steps = recipe.evaluation.every_steps, recipe.training.total_steps
    if every is not None and every > steps:
        return Check(
            "evaluation",
            "warn",
            f"every {every:,} steps of {steps:,}: only after the last one; set evaluation.every_steps near "
            f"{max(1, steps // 10)}",
        )
    return Check("evaluation", "ok", "; ".join(counts))
