"""Write what every command made of the messy folder: `python -m tests.messy.messy_report docs/results/messy.md`."""

import sys
from collections import Counter, defaultdict
from pathlib import Path

from tests.messy.messy_folder import CAPTION, NIGHTLY
from tests.messy.messy_pictures import READ
from tests.messy.messy_run import MessyRun, messy_run

_PAGE = """\
# A messy folder

{files:,} awkward files, all made by `tests/messy/messy_folder.py`, and what every command makes of them.
`tests/messy/test_messy_folder.py` checks the fate of each file against the one that was written down when it was made.
Read, used as a caption and left out add up to all files; what is passed over as a whole, such as a folder that cannot
be listed, counts as one. Images whose reason is not the expected one: {wrong}.

Written by `python -m tests.messy.messy_report docs/results/messy.md`.

| kind | files | read | caption files | left out, by reason |
|---|---:|---:|---:|---|
{rows}

The process that ran the commands had no right to read what permissions forbid. Seconds and memory are of one process
that runs all of them, on two cores that others used too.

| command | exit code | seconds | most memory, MB |
|---|---:|---:|---:|
{commands}
"""


def report(done: MessyRun) -> str:
    """Return the page: a row a kind of file, and a row a command."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for path, kind in done.pile.kinds.items():
        fate = done.pile.fates[path]
        what = "caption file" if fate == (CAPTION,) else done.verdicts.get(path, fate[0])
        kinds[kind]["all"] += 1
        kinds[kind][what] += 1
    total: Counter[str] = Counter()
    rows = []
    for kind in sorted(kinds):
        total += kinds[kind]
        rows.append(_row(kind, kinds[kind]))
    commands = [
        f"| {name} | {result.code} | {result.seconds:.1f} | {result.peak_bytes / 1e6:,.0f} |"
        for name, result in done.results.items()
    ]
    wrong = sum(reason not in done.pile.fates[path] for path, reason in done.verdicts.items())
    return _PAGE.format(
        files=total["all"],
        wrong=wrong,
        rows="\n".join([*rows, _row("**all**", total)]),
        commands="\n".join(commands),
    )


def _row(kind: str, counts: Counter[str]) -> str:
    reasons: Counter[str] = Counter()
    for what, count in counts.items():
        if what not in ("all", READ, "caption file"):
            # One row a suffix would be longer than the rest of the page.
            reasons[what.partition(":")[0]] += count
    words = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    return f"| {kind} | {counts['all']:,} | {counts[READ]:,} | {counts['caption file']:,} | {words} |"


def main() -> None:
    with messy_run(NIGHTLY) as done:
        Path(sys.argv[1]).write_text(report(done))


if __name__ == "__main__":
    main()
