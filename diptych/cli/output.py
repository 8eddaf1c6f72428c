"""What a verb prints: results to stdout, everything else to stderr, bars only on a terminal."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.data.left_out import LeftOut

_WIDEST = 60  # characters of a cell that a column is made as wide as; a path may be far longer


def emit(value: Any) -> None:
    """Print one JSON value on one line of stdout. Numbers that JSON lacks (nan, infinity) become null.

    Written in ASCII: a file name that is not valid UTF-8 survives as an escape.
    """
    print(json.dumps(_finite(value), allow_nan=False))


def say(text: str) -> None:
    """Print a remark for the person at the terminal, on stderr."""
    print(text, file=sys.stderr)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print aligned columns on stdout; the columns numbered in `right` are flush right, as numbers are.

    A cell of more than 60 characters is printed whole, and moves only what follows it in its own line.
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [
        max(len(line[column]) for line in lines if len(line[column]) <= _WIDEST or line is lines[0])
        for column in range(len(header))
    ]
    for line in lines:
        cells = [
            cell.rjust(widths[column]) if column in right else cell.ljust(widths[column])
            for column, cell in enumerate(line)
        ]
        print("  ".join(cells).rstrip())


@contextlib.contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr while the body runs, if stderr is a terminal; yield a function that advances it by n."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda count: bars.advance(task, count)


def say_left_out(left_out: "LeftOut") -> None:
    """Warn of what was not used: a line for each reason, with the first names; nothing where all was used."""
    for line in left_out.warnings():
        say(f"warning: {line}")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
