"""Files of names and phrases that people write or have: lines of text, JSON, and tables of two columns."""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from diptych.data.example import caption_lines, decode_text
from diptych.errors import SettingsError

Phrases: TypeAlias = dict[
    str, tuple[str, ...]
]  # the name of a class and the ways to say it; () for the name itself

_NAME_COLUMNS = ("label", "labels", "class", "class_name", "classname", "category", "name")
_PHRASE_COLUMNS = ("phrase", "phrases", "prompt", "text", "description")
_QUOTED = re.compile(r"""(["'])(?P<name>.*)\1,?""")
_SYNSET = re.compile(r"n\d{8}")  # WordNet's name of a noun, as ImageNet's folders have it
_COUNTED = re.compile(r"(?P<head>\d+|n\d{8})[.:)]?\s+\S")
_JSON_FORMS = (
    'expected a list of names (["cat", "dog"]), an object from a name to one or more phrases, or one from an index to '
    'a name ({"0": "cat"}), as ImageNet\'s class index'
)


def read_lines(file: Path) -> tuple[str, ...]:
    """Return the lines of a text file without surrounding space, and without quotes where every line has them.

    Raises:
        DataError: the file is not UTF-8. SettingsError: it looks like JSON or a table.
    """
    text = decode_text(file.read_bytes(), str(file))
    lines = caption_lines(text)
    if not lines:
        return lines
    # A line may begin with {}, where a template has its name.
    if lines[0][0] in "[{" and not lines[0].startswith("{}") and lines[-1][-1] in "]}":
        raise SettingsError(
            f"{file}: looks like JSON (its first line is {_cut(lines[0])}), but is named as text with one a line; "
            f"name it {file.with_suffix('.json').name}"
        )
    heads = [re.split(r"[,;\t]", line)[0].strip() for line in lines]
    numbered = all(head.isdigit() and head != line for head, line in zip(heads, lines, strict=True))
    first = re.split(r"[,;\t]", lines[0])
    if (
        numbered
        or (len(first) > 1 and _column(first, _NAME_COLUMNS) is not None)
        or all("\t" in line for line in lines)
    ):
        raise SettingsError(
            f"{file}: looks like a table (its first line is {_cut(lines[0])}), but is named as text with one a line; "
            f"name it {file.with_suffix('.csv').name}, or leave one label a line"
        )
    # A line of a template may hold commas; it has {} where the name goes.
    if (len(lines) == 1 and "," in lines[0].strip(",") and "{}" not in lines[0]) or _is_counted(lines):
        raise SettingsError(
            f"{file}: its first line is {_cut(lines[0])}; expected one label a line, and nothing else; numbers and "
            f"codes beside the names belong into a table: {file.with_suffix('.csv').name}"
        )
    quoted = [_QUOTED.fullmatch(line) for line in lines]
    if all(quoted):
        return tuple(match["name"].strip() for match in quoted if match is not None)
    return lines


def _is_counted(lines: Sequence[str]) -> bool:
    """Return whether every line begins with its number, from 0 or 1, or with WordNet's name of a class."""
    found = [_COUNTED.match(line) for line in lines]
    heads = [match["head"] for match in found if match is not None]
    if len(lines) < 2 or len(heads) < len(lines):
        return False
    first = [str(number) for number in range(len(lines))], [str(number + 1) for number in range(len(lines))]
    return heads in first or all(map(_SYNSET.fullmatch, heads))


def read_json(file: Path) -> Any:
    """Return what a JSON file holds; SettingsError where it is none, or an object has a name twice."""
    try:
        return json.loads(decode_text(file.read_bytes(), str(file)), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file}: not valid JSON ({error}); {_JSON_FORMS}") from None


def phrases_in_json(content: Any, file: Path) -> Phrases:
    """Return the classes of a list of names, or of an object as `_JSON_FORMS` says; SettingsError for anything else."""
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return _phrases(((name, ()) for name in content), file)
    if not isinstance(content, dict) or not content:
        raise SettingsError(f"{file}: found {_cut(json.dumps(content))}; {_JSON_FORMS}")
    ways = {name: [value] if isinstance(value, str) else value for name, value in content.items()}
    for name, phrases in ways.items():
        if not isinstance(phrases, list) or not phrases or not all(isinstance(each, str) for each in phrases):
            raise SettingsError(f"{file}: {name!r} is {_cut(json.dumps(content[name]))}; {_JSON_FORMS}")
    if not all(name.isdecimal() for name in ways):
        return _phrases(((name, tuple(phrases)) for name, phrases in ways.items()), file)
    in_order = [ways[number] for number in sorted(ways, key=int)]
    if all(len(phrases) == 2 and _SYNSET.fullmatch(phrases[0]) for phrases in in_order):
        # ImageNet's class index: {"0": ["n01440764", "tench"]}. The data are in folders named by the synset.
        return _phrases(((synset, (words.replace("_", " "),)) for synset, words in in_order), file)
    return _phrases(((phrases[0], tuple(phrases) if len(phrases) > 1 else ()) for phrases in in_order), file)


def phrases_in_table(file: Path) -> Phrases:
    """Return the classes of a CSV or TSV file.

    With column names, one of them is that of the classes (`label`, `class`, `name`, ...; of several, the first that is
    not all numbers), and one may be that of a phrase for each (`phrase`, `prompt`, `text`, ...). Without, a row is a
    name, a number and a name, a name and a number, or a name and a phrase for it.

    Raises:
        DataError: the file is not UTF-8. SettingsError: it is none of these.
    """
    text = decode_text(file.read_bytes(), str(file))
    first = text.lstrip().partition("\n")[0]
    delimiter = next((each for each in "\t;" if each in first and "," not in first), ",")
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(text.splitlines(), delimiter=delimiter, strict=True, skipinitialspace=True)
        ]
    except csv.Error as error:
        raise SettingsError(f"{file}: cannot be read as a table ({error}); close every quote") from None
    rows = [row for row in rows if any(row)]
    names = _name_column(rows) if rows else None
    if names is not None:
        longer = next((row for row in rows[1:] if any(row[len(rows[0]) :])), None)
        if longer is not None:
            raise SettingsError(
                f"{file}: the row {_cut(', '.join(longer))} has more cells than the {len(rows[0])} columns; put a name "
                'with a comma in quotes: "dog, big"'
            )
        said = _column(rows[0], _PHRASE_COLUMNS)
        return _phrases(
            ((_cell(row, names), () if said is None else (_cell(row, said),)) for row in rows[1:]), file
        )
    widths = {len(row) for row in rows}
    if widths == {1}:
        return _phrases(((row[0], ()) for row in rows), file)
    if widths == {2} and all(row[0].isdecimal() for row in rows):
        return _phrases(((name, ()) for _, name in rows), file)
    if widths == {2} and all(row[1].isdecimal() for row in rows):
        return _phrases(((name, ()) for name, _ in rows), file)
    if widths == {2} and len(rows) > 1:  # a single row is as likely a list of names
        return _phrases(((name, (phrase,)) for name, phrase in rows), file)
    raise SettingsError(
        f"{file}: the first row is {_cut(', '.join(rows[0]) if rows else '')}; expected a column named "
        f"{', '.join(_NAME_COLUMNS)}, or a row a class: a name, a number and a name, or a name and a phrase"
    )


def _phrases(pairs: Iterable[tuple[str, tuple[str, ...]]], file: Path) -> Phrases:
    found: Phrases = {}
    for name, ways in pairs:
        if not name.strip() or name.strip() in found:
            problem = f"the label {name.strip()!r} is there twice" if name.strip() else "a label is empty"
            raise SettingsError(f"{file}: {problem}; each class needs a name of its own")
        found[name.strip()] = tuple(filter(None, ways))
    return found


def _column(cells: Sequence[str], usual: Sequence[str]) -> int | None:
    """Return the position of the first usual name among cells that may be the names of columns."""
    names = [cell.strip().strip("\"'").lower() for cell in cells]
    return next((names.index(name) for name in usual if name in names), None)


def _name_column(rows: Sequence[Sequence[str]]) -> int | None:
    """Return the position of the column of the classes: the first with a usual name whose cells are not all numbers."""
    heads = [cell.strip("\"'").lower() for cell in rows[0]]
    usual = [heads.index(name) for name in _NAME_COLUMNS if name in heads]
    words = (at for at in usual if not all(_cell(row, at).isdecimal() for row in rows[1:]))
    return next(words, usual[0] if usual else None)


def _cell(row: Sequence[str], position: int) -> str:
    return row[position] if position < len(row) else ""


def _unique(pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def _cut(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
