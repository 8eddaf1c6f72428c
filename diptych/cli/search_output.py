"""What `diptych search` prints: JSON, or a table no wider than the terminal."""

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diptych.cli.output import emit, say, table
from diptych.printable import printable

if TYPE_CHECKING:
    from diptych.search.query import Answer, Match, Question
    from diptych.search.stores.image_rows import Item

_NARROWEST = 20  # characters of a caption that are shown however narrow the terminal is


def emit_answer(words: str | None, question: "Question", answer: "Answer") -> None:
    """Print an answer as JSON."""
    from diptych.search.query import result_of

    kinds: list[dict[str, Any]] = [
        {"text": part.text, "image": part.image, "id": part.id} for part in question.parts
    ]
    parts = [
        {kind: str(value) for kind, value in values.items() if value is not None} | {"weight": part.weight}
        for values, part in zip(kinds, question.parts, strict=True)
    ]
    seconds = {"embedding": answer.seconds_embedding, "searching": answer.seconds_searching}
    results = [result_of(found) for found in answer.found]
    emit({"query": words, "parts": parts, "results": results, "more": answer.more, "seconds": seconds})


def print_matches(results: Sequence["Match"], dated: bool) -> None:
    """Print a table, with the number of duplicates if any were grouped, and with dates if `dated`."""
    grouped = any(found.duplicates for found in results)
    rows = [
        [
            f"{found.score:.3f}",
            *([f"+{len(found.duplicates)}" if found.duplicates else ""] if grouped else []),
            *([printable(found.item.taken or "")] if dated else []),
            printable(found.item.uri),
            printable("; ".join(found.item.captions)),
        ]
        for found in results
    ]
    header = ("score", *(("same",) if grouped else ()), *(("taken",) if dated else ()), "image", "caption")
    _table(header, rows, right=(0, 1) if grouped else (0,))


def print_list(items: Sequence["Item"], more: bool, as_json: bool) -> None:
    """Print images that were listed by their date, without a question."""
    from diptych.search.query import listed_result

    if as_json:
        results = [listed_result(item) for item in items]
        emit({"query": None, "parts": [], "results": results, "more": more, "seconds": {}})
    elif items:
        rows = [
            [printable(item.taken or ""), printable(item.uri), printable("; ".join(item.captions))]
            for item in items
        ]
        _table(("taken", "image", "caption"), rows)
    else:
        say("nothing found")


def _table(header: tuple[str, ...], rows: list[list[str]], right: Sequence[int] = ()) -> None:
    """Print the rows, whose last column has the captions; without it where no image has any."""
    if any(row[-1] for row in rows):
        table(header, _narrow(rows), right=right)
    else:
        table(header[:-1], [row[:-1] for row in rows], right=right)


def _narrow(rows: list[list[str]]) -> list[list[str]]:
    """Return the rows; on a terminal the last column is cut to its width."""
    if not sys.stdout.isatty() or not rows:
        return rows
    others = sum(max(len(row[column]) for row in rows) + 2 for column in range(len(rows[0]) - 1))
    room = max(_NARROWEST, shutil.get_terminal_size().columns - others)
    return [[*row[:-1], row[-1] if len(row[-1]) <= room else row[-1][: room - 1] + "…"] for row in rows]
