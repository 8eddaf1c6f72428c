"""Every approach at work on the scenes: what is claimed of it, what was measured, and beside it a control.

    python experiments/approaches.py --out build/approaches [--workers 2] [--only NAME ...]

Three seeds or more of each row of `approaches_rows.py`, at most five minutes a seed on two cores. A job that is done is
not done again. Writes docs/results/approaches.md and .json (or into `--page`); with `--page-only`, from the results
that there are. `--quick` takes seconds, for tests.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from approaches_bench import SIDE, Bench
from approaches_rows import ROWS, Row
from jobs import Result, do_all, keep_result, options, read_result

from diptych.atomic import write_text
from diptych.evaluation.robustness.student_t import margin
from diptych.reports.markdown import markdown_table

PAGE = """\
# Every approach at work

Written by `experiments/approaches.py`: {seeds}, on the procedural scenes of [data.md](../data.md), {side} pixels a
side, in small networks. It says whether a system works, not how well it would on photographs. The letters are those of
[approaches.md](../approaches.md). A row is a recipe and what `approaches_rows.py` changes in it; `--only` runs some.

Each row stands for a claim and has a control that would show if the claim were empty. *Measured* and *control* are
means over seeds, with the lowest and the highest. *Difference* is measured less control, paired by seed, with Student's
95 % interval. A claim is shown where that interval lies on its side, not where it lies on the other, and open where it
reaches to both. Rows with five seeds were open after three, with a mean on the claim's side, and had two more for that;
looking twice makes their intervals a little too sure. *Minutes* are of one core, for the slowest seed of a row with its
control; a model that several rows train is trained once and counts in each. Guessing one of the {classes} classes is
right in {guessing}. The settings of a row were fixed before its first result, but for what the notes say.

{summary}

{table}
{notes}
## Captions of held-out scenes

By beam search with five beams; the first scenes of `scenes:test`, seed 0 of the row VirTex. In training a caption has
one sentence more, which no picture tells; these have none, and the model may write one.

{captions}
"""
CLASSES = 48  # combinations of a colour and a shape


def spread(values: Sequence[float], row: Row) -> str:
    """The mean with its unit, then the lowest and the highest without, where there is more than one."""
    if len(values) == 1:
        return row.shown(values[0])
    low, high = (row.number(value) for value in (min(values), max(values)))
    return f"{row.shown(fmean(values))} ({low} to {high})"


def minutes(results: Sequence[Result]) -> str:
    """The most that a seed took of one core, of those that were timed."""
    found = [result["core_minutes"] for result in results if "core_minutes" in result]
    return f"{max(found):.1f}" if found else ""


def difference(row: Row, results: Sequence[Result]) -> tuple[float, float]:
    """Measured less control over seeds, turned so that more is better: the mean, and half of Student's interval."""
    found = [row.sign * (result["measured"] - result["control"]) for result in results]
    return fmean(found), margin(found)


def verdict(row: Row, results: Sequence[Result]) -> str:
    middle, half = difference(row, results)
    if len(results) < row.seeds or middle - half <= row.least <= middle + half:
        return "open"
    return "yes" if middle > row.least else "**no**"


def line(row: Row, results: Sequence[Result]) -> list[str]:
    middle, half = difference(row, results)
    apart = f"{row.sign * (100 * middle if row.percent else middle):+.{1 if row.percent else 3}f}"
    if math.isfinite(half):
        apart += f" ± {row.number(half)}"
    return [
        f"{row.system} ({row.section})" if row.section else row.system,
        row.claim + row.by_how_much,
        row.measure,
        str(len(results)),
        spread([result["measured"] for result in results], row),
        f"{spread([result['control'] for result in results], row)}, {row.control}",
        f"{apart} points" if row.percent else apart,
        verdict(row, results),
        minutes(results),
    ]


def summary(found: Mapping[str, Sequence[Result]]) -> str:
    """How many claims are shown, which are not, and which are open."""
    by_verdict: dict[str, list[str]] = {}
    for name, results in found.items():
        row = ROWS[name]
        by_verdict.setdefault(verdict(row, results), []).append(f"{row.system} ({row.claim})")
    said = f"**{len(by_verdict.get('yes', []))} of {len(found)} claims are shown.**"
    for name, what in (("**no**", "Not shown"), ("open", "Open")):
        if name in by_verdict:
            said += f" {what}: {'; '.join(by_verdict[name])}."
    return said


def seeds_of(found: Mapping[str, Sequence[Result]]) -> str:
    counts = {len(results) for results in found.values()}
    each = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{each} seed{'' if counts == {1} else 's'} a row"


def write_page(folder: Path, found: Mapping[str, Sequence[Result]]) -> None:
    """approaches.md and approaches.json. found: the results of each row that has any, by seed."""
    head = ("system", "claim", "measure", "seeds", "measured", "control", "difference", "shown", "minutes")
    rows = [line(ROWS[name], results) for name, results in found.items()]
    table = markdown_table(head, rows, "l" * len(head))
    notes = "\n".join(f"- {ROWS[name].system}: {ROWS[name].note}" for name in found if ROWS[name].note)
    captions = [pair for result in found.get("virtex", [])[:1] for pair in result.get("captions", [])]
    shown = ["| true | written |", "|---|---|", *(f"| {truth} | {written} |" for truth, written in captions)]
    text = PAGE.format(
        seeds=seeds_of(found),
        side=SIDE,
        classes=CLASSES,
        guessing=f"{100 / CLASSES:.1f} %",
        summary=summary(found),
        table=table,
        notes=f"{notes}\n" if notes else "",
        captions="\n".join(shown) if captions else "Not run.",
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "approaches.md", text.rstrip() + "\n")
    write_text(folder / "approaches.json", json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = options("approaches", __doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), default=tuple(ROWS), metavar="NAME")
    parser.add_argument("--page-only", action="store_true", help="run nothing")
    given = parser.parse_args()
    jobs: dict[str, dict[str, Any]] = {
        f"{name}-{seed}": {"row": name, "seed": seed, "quick": given.quick, "version": ROWS[name].version}
        for seed in range(2 if given.quick else max(ROWS[name].seeds for name in given.only))
        # Neighbours share models: with one between them, two workers do not train the same one at a time.
        for name in (*given.only[::2], *given.only[1::2])
        if seed < ROWS[name].seeds
    }

    def run(job: str) -> Result:
        settings = jobs[job]
        bench = Bench(given.out / "runs" / job, given.out / "kept", settings["seed"], quick=given.quick)
        started = time.process_time()
        try:
            result = ROWS[settings["row"]].run(bench)
            seconds = time.process_time() - started + bench.borrowed
            return {**result, "core_minutes": seconds / 60}
        finally:
            bench.clear()

    if given.job:
        keep_result(given.out, given.job, jobs[given.job], run(given.job))
        return
    if not given.page_only:
        arguments = ["--out", str(given.out), *(["--quick"] if given.quick else [])]
        do_all(Path(__file__), given.out, jobs, run, workers=given.workers, arguments=arguments)
    kept = {job: read_result(given.out, job, settings) for job, settings in jobs.items()}
    found = {
        name: [result for job, result in kept.items() if jobs[job]["row"] == name and result is not None]
        for name in given.only
    }
    found = {name: results for name, results in found.items() if results}
    if not found:
        parser.error(f"{given.out} has no results of these rows yet; leave --page-only out")
    write_page(given.page, found)


if __name__ == "__main__":
    main()
