"""`diptych compare`: two models at the same tasks, example by example."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.options import Json
from diptych.cli.output import emit, say, table

if TYPE_CHECKING:
    from diptych.evaluation.comparison import Change, Comparison, Difference, TaskComparison

Place = Annotated[
    Path, Parameter(help="What diptych evaluate all wrote: its folder, or the JSON file of one task in it.")
]


def compare(
    first: Place,
    second: Place,
    /,
    *,
    changed: Annotated[
        int, Parameter(help="How many examples with another answer to list for each task.")
    ] = 10,
    seed: Annotated[int, Parameter(help="Seed of the resampling.")] = 0,
    as_json: Json = False,
) -> None:
    """Say at which tasks the second model is better or worse than the first, and whether that may be chance.

    Both models answered the same examples, so it is their differences that are counted: a 95 % interval by drawing
    the examples anew 10,000 times, and for the first metric of a task the exact McNemar test (drawn signs where
    scores are not 0 or 1), corrected by Holm for the number of tasks.
    """
    from diptych.evaluation.suite.suite_comparison import compare_results

    found = compare_results(first, second, seed=seed, say=say)
    for name, why in found.left_out.items():
        say(f"left out: {name}: {why}")
    for task in found.tasks:
        if task.only_first or task.only_second:
            say(
                f"{task.name}: {task.only_first:,} examples that only the first was asked and {task.only_second:,} "
                "that only the second was asked are left out"
            )
    if as_json:
        emit(
            {
                "first": str(first),
                "second": str(second),
                "tasks": [task.to_json(changed) for task in found.tasks],
                "left_out": dict(found.left_out),
                "correction": "holm",
            }
        )
        return
    _print(found, changed)


def _print(found: "Comparison", changed: int) -> None:
    rows = [
        _row(task.name if not number else "", task.count, one)
        for task in found.tasks
        for number, one in enumerate(task.differences)
    ]
    header = ("task", "images", "metric", "first", "second", "difference", "95 % interval", "gained", "lost")
    table((*header, "p", "p (Holm)"), rows, right=(1, 3, 4, 5, 7, 8, 9, 10))
    for task in found.tasks:
        if changed and task.changes:
            print(f"\n{task.name}: {len(task.changes):,} examples changed" + _which(task, changed))
            table(
                ("", "example", "class", "first", "second"),
                [_change(one) for one in task.changes[:changed]],
            )
    tests = sum(one.p_value is not None for task in found.tasks for one in task.differences)
    print(
        "\nDifferences are second - first, over the same examples. p (Holm) is corrected for "
        f"{'1 test' if tests == 1 else f'{tests} tests'}: where the models are alike, one below 0.05 comes in at "
        "most 1 of 20 comparisons."
    )


def _which(task: "TaskComparison", changed: int) -> str:
    return f"; the first {changed:,}:" if len(task.changes) > changed else ":"


def _row(name: str, count: int, one: "Difference") -> tuple[str, ...]:
    low, high = one.interval
    return (
        name,
        f"{count:,}",
        one.metric.replace("_", " "),
        f"{100 * one.first:.1f} %",
        f"{100 * one.second:.1f} %",
        f"{100 * one.difference:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        f"{one.gained:,}",
        f"{one.lost:,}",
        _p(one.p_value),
        _p(one.adjusted),
    )


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _change(one: "Change") -> tuple[str, ...]:
    names = (one.target or "", one.first or "", one.second or "")
    return ("+" if one.gained else "-", one.key, *names)
