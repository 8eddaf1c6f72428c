"""Compare what two suites, or two tasks, wrote on the disk."""

from collections.abc import Callable
from pathlib import Path

from diptych.evaluation.comparison import Comparison, compare_suites
from diptych.evaluation.suite.suite_files import read_result
from diptych.evaluation.suite.suite_run import read_suite_folder


def compare_results(
    first: Path, second: Path, *, seed: int = 0, say: Callable[[str], None] = lambda _: None
) -> Comparison:
    """Compare two models by their results; two files of one task each are compared whatever the tasks' names.

    first, second: each the folder of a suite, or the JSON file of one task in it. say: gets a line for each task that
    failed and so is left out.

    Raises:
        DataError: a place holds no results, or see `compare_suites`.
    """
    sides = []
    for place in (first, second):
        results = [read_result(place)] if place.is_file() else [*read_suite_folder(place).values()]
        for result in results:
            if result.report is None:
                say(f"left out: {place}: {result.name} failed: {result.error}")
        sides.append({result.name: result.report for result in results if result.report is not None})
    if first.is_file() and second.is_file() and len(sides[0]) == len(sides[1]) == 1:
        sides[1] = dict.fromkeys(sides[0], *sides[1].values())
    return compare_suites(*sides, seed=seed)
