"""Choose the columns of a table, and turn the cells of a row into an example."""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.data.example import Example, example_from_record, is_nothing
from diptych.data.files.places import Place
from diptych.data.files.remote import is_address
from diptych.errors import DataError

# Usual names, best first; the last three are those of img2dataset, whose column holds the image itself.
# fmt: off
IMAGE_NAMES = (
    "image", "filepath", "file_path", "image_path", "img_path", "path", "file", "filename", "file_name", "img",
    "image_file", "image_name", "jpg", "png", "webp",
)
CAPTION_NAMES = (
    "captions", "caption", "title", "text", "sentence", "description", "alt", "alt_text", "comment",
)
# fmt: on
LABEL_NAMES = ("label", "class", "class_name", "category")

# A list of strings as JSON, Python and numpy write it; numpy puts no comma between them.
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST = re.compile(rf"\[\s*(?:(?:{_STRING}|None|null|nan|NaN)[\s,]*)*\]", re.DOTALL)
_NO_WORDS = ("nan", "none", "null", "n/a", "<na>")  # written by programs in place of a missing caption


@dataclass(frozen=True)
class Columns:
    """The names of the columns; None if the user gave none, or the table has none."""

    image: str | None = None
    caption: str | None = None
    label: str | None = None


def choose_columns(found: Sequence[str], wanted: Columns, where: str) -> Columns:
    """Choose the columns of the image, the caption and the label among those found; `image` is never None.

    Usual names match in any case; among several, the first of `IMAGE_NAMES` (and so on) wins.

    Raises:
        DataError: a wanted column is missing, a chosen one occurs twice, or there is none for the image.
    """
    listed = f"the columns are {', '.join(map(repr, found))}" if found else "it has no columns"
    by_name = {name.strip().lower(): name for name in reversed(found)}

    def choose(what: str, given: str | None, usual: Sequence[str]) -> str | None:
        name = (
            given if given is not None else next((by_name[name] for name in usual if name in by_name), None)
        )
        if name is not None and found.count(name) != 1:
            problem = (
                f"no column {name!r}" if name not in found else f"{found.count(name)} columns named {name!r}"
            )
            raise DataError(
                f"{where}: {problem} for the {what}; {listed}; "
                f"choose one with {what}_column (--{what}-column)"
            )
        return name

    chosen = Columns(
        choose("image", wanted.image, IMAGE_NAMES),
        choose("caption", wanted.caption, CAPTION_NAMES),
        choose("label", wanted.label, LABEL_NAMES),
    )
    if chosen.image is None:
        raise DataError(
            f"{where}: no column has a usual name for the image; {listed}; "
            "choose one with image_column (--image-column); to embed texts without images, call "
            "diptych.embed_texts in Python"
        )
    return chosen


def example_from_row(
    key: str, image: Path | bytes, row: Mapping[str, Any], chosen: Columns, where: str
) -> Example:
    """Make an example from the cells of a row; the columns that are not chosen become metadata.

    A cell of captions or tags that is a list of strings, written as text, is read as that list. Such a list of labels
    is joined with `;`, as for fine-tuning on several classes.
    """
    record = {name: value for name, value in row.items() if name not in (chosen.image, chosen.label)}
    if chosen.caption not in ("captions", "caption"):
        record.pop("captions", None)
        record["caption"] = record.pop(chosen.caption, None) if chosen.caption else None
    record["label"] = row.get(chosen.label) if chosen.label else None
    for name in ("captions", "caption", "tags"):
        listed = written_list(record.get(name))
        if listed is not None:
            record[name] = listed
    labels = written_list(record["label"])
    if labels is not None:
        record["label"] = ";".join(labels)
    return example_from_record(key, image, record, where)


def image_path(value: Any, folder: Place, where: str) -> Place:
    """Return the file that a cell names. Raises DataError for an empty cell, an address, or a value of another type."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: the image column holds {value!r}; expected a path, relative to {folder}")
    if is_address(value):
        raise DataError(
            f"{where}: the image is an address ({value[:80]}); Diptych does not download images: "
            "fetch them first, for example with img2dataset, and open the shards that it writes"
        )
    return folder / value.strip()


def written_list(cell: Any) -> list[str] | None:
    """Return the strings of a cell that is a list written as text, `["a", "b"]`; None for any other cell."""
    text = cell.strip() if isinstance(cell, str) else ""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        if not _LIST.fullmatch(text):
            return None
        try:
            values = [ast.literal_eval(string) for string in re.findall(_STRING, text, re.DOTALL)]
        except (ValueError, SyntaxError):
            return None
    if not isinstance(values, list) or not all(isinstance(each, str) or is_nothing(each) for each in values):
        return None
    return [each for each in values if isinstance(each, str)]


def remarks_on_cells(rows: Sequence[Mapping[str, Any]], chosen: Columns) -> Iterator[str]:
    """Yield remarks on cells that may surprise a user: lists written as text, "nan" as a word."""
    for what, column in (("caption", chosen.caption), ("label", chosen.label)):
        cells = [row.get(column or "") for row in rows]
        texts = [cell.strip() for cell in cells if isinstance(cell, str)]
        if any(written_list(text) is not None for text in texts):
            yield f"lists in the column {column!r} are read as several {what}s"
        for word in _NO_WORDS:
            count = sum(text.lower() == word for text in texts)
            if count > 1:
                yield (
                    f"the {what} is the word {word!r} in {count:,} of the {len(rows):,} rows that were checked; "
                    f"leave the cell of a missing {what} empty"
                )


def described_columns(found: Sequence[str], chosen: Columns) -> str:
    """Describe in one line which column holds what."""
    used = [f"{what}: {name!r}" for what, name in vars(chosen).items() if name is not None]
    unused = [repr(name) for name in found if name not in vars(chosen).values()]
    return ", ".join(used) + (f"; further columns: {', '.join(unused)}" if unused else "")
