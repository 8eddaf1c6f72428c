"""Markdown tables, and other people's names in them."""

from collections.abc import Iterable, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], sides: str = "") -> str:
    """Return a table with a line end after each row.

    sides: "l" or "r" a column; without it the first column is on the left and the others, numbers, on the right.
    """
    sides = sides or "l".ljust(len(heads), "r")
    rule = "|".join("---:" if side == "r" else "---" for side in sides)
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]]) + "\n"


def markdown_text(text: str) -> str:
    """Return text on one line, with what Markdown and HTML would read as their own made harmless."""
    return "".join(
        f"\\{letter}" if letter in "\\`*_[]<>|#&~$" else letter for letter in " ".join(text.split())
    )
