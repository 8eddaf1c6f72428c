"""Every approach at work on the scenes: what is claimed of it, what was measured, and beside it a control.

    python experiments/approaches.py --out build/approaches [--workers 2] [--only NAME ...]

Three seeds of each row of `approaches_rows.py`, at most five minutes a seed on one core. A job that is done is not done
again. Writes docs/results/approaches.md and .json (or into `--page`). `--quick` takes seconds, for tests.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from approaches_bench import Bench
from approaches_rows import ROWS, Row
from jobs import Result, do_all, keep_result

from diptych.atomic import write_text

SEEDS = (0, 1, 2)
T = {1: 12.706, 2: 4.303}  # Student's t by degrees of freedom, 97.5 %

PAGE = """\
# Every approach at work

Written by `experiments/approaches.py`: {seeds} seeds a row, on the procedural scenes of [data.md](../data.md), 32
pixels a side. Each row stands for a claim and has a control that would show if the claim were empty. The numbers are
means over seeds with the lowest and the highest. *Difference* is measured less control, paired by seed, with Student's
95 % interval. The settings of all rows were fixed before the first was run. *Shown* says whether the interval lies on
the claim's side.

{table}
{notes}
## Captions of held-out scenes

By beam search with five beams; the first scenes of `scenes:test`, seed 0 of the row VirTex.

{captions}
"""


def spread(values: Sequence[float], row: Row) -> str:
    shown = [row.shown(value) for value in (fmean(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def difference(row: Row, results: Sequence[Result]) -> tuple[float, float]:
    """Measured less control over seeds, turned so that more is better: the mean, and half of Student's interval."""
    found = [row.sign * (result["measured"] - result["control"]) for result in results]
    half = T[len(found) - 1] * stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.inf
    return fmean(found), half


def line(row: Row, results: Sequence[Result]) -> list[str]:
    middle, half = difference(row, results)
    apart = (
        f"{row.shown(row.sign * middle)} ± {row.shown(half)}"
        if math.isfinite(half)
        else row.shown(row.sign * middle)
    )
    return [
        f"{row.system} ({row.section})",
        row.claim,
        f"{row.measure}: {spread([result['measured'] for result in results], row)}",
        f"{row.control}: {spread([result['control'] for result in results], row)}",
        apart,
        "yes" if middle - half > row.least else "no",
    ]


def write_page(folder: Path, found: Mapping[str, Sequence[Result]]) -> None:
    """approaches.md and approaches.json. found: the results of each row that has any, by seed."""
    head = ("system", "claim", "measured", "control", "difference", "shown")
    rows = [line(ROWS[name], results) for name, results in found.items()]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    table = "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)]) + "\n"
    notes = "\n".join(f"- {ROWS[name].system}: {ROWS[name].note}" for name in found if ROWS[name].note)
    captions = [pair for result in found.get("virtex", [])[:1] for pair in result.get("captions", [])]
    shown = ["| scene | written |", "|---|---|", *(f"| {truth} | {written} |" for truth, written in captions)]
    text = PAGE.format(
        seeds=len(next(iter(found.values()))),
        table=table,
        notes=f"\n{notes}\n" if notes else "",
        captions="\n".join(shown) if captions else "Not run.",
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "approaches.md", text.rstrip() + "\n")
    write_text(folder / "approaches.json", json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("build/approaches"))
    parser.add_argument("--page", type=Path, default=Path(__file__).parents[1] / "docs" / "results")
    parser.add_argument("--workers", type=int, default=2, help="jobs at a time; 0: in this process")
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), default=tuple(ROWS), metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    seeds = SEEDS[:2] if given.quick else SEEDS
    jobs: dict[str, dict[str, Any]] = {
        f"{name}-{seed}": {"row": name, "seed": seed, "quick": given.quick, "version": ROWS[name].version}
        for seed in seeds
        for name in given.only
    }

    def run(job: str) -> Result:
        settings = jobs[job]
        bench = Bench(given.out / "runs" / job, settings["seed"], quick=given.quick)
        try:
            return ROWS[settings["row"]].run(bench)
        finally:
            bench.clear()

    if given.job:
        keep_result(given.out, given.job, jobs[given.job], run(given.job))
        return
    arguments = ["--out", str(given.out), *(["--quick"] if given.quick else [])]
    found = do_all(Path(__file__), given.out, jobs, run, workers=given.workers, arguments=arguments)
    write_page(given.page, {name: [found[f"{name}-{seed}"] for seed in seeds] for name in given.only})


if __name__ == "__main__":
    main()
