"""The classes of a zero-shot task: what the data calls them, and the words for each."""

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych import config
from diptych.data.sources.columns import written_list
from diptych.errors import DataError, SettingsError
from diptych.evaluation.zero_shot.prompts import check_templates
from diptych.evaluation.zero_shot.word_files import (
    Phrases,
    phrases_in_json,
    phrases_in_table,
    read_json,
    read_lines,
)

_FILE_SUFFIXES = (".txt", ".toml", ".json", ".csv", ".tsv")
_EXPECTED = "text (.txt) with one label a line, TOML or JSON with `labels`, or a table (.csv, .tsv) of names"


@dataclass(frozen=True)
class LabelSet:
    """Classes in the order of a classifier's columns.

    names: as they stand in the data (a folder's name, a column's value); no two alike.
    phrases: for each, one or more ways to say it, which go into the templates.
    templates: the ones that belong to these classes, when a file gave some.
    """

    names: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise SettingsError("no labels; expected names such as cat,dog or a file with one a line")
        seen: set[str] = set()
        for name in self.names:
            if name in seen:
                raise SettingsError(f"the label {name!r} is there twice; each class needs a name of its own")
            seen.add(name)

    @classmethod
    def of(cls, names: Iterable[str]) -> "LabelSet":
        """Make classes that are called by their names; underscores, as folders have them, are read as spaces."""
        unique = tuple(names)
        return cls(unique, tuple((name.replace("_", " "),) for name in unique))


@dataclass(frozen=True)
class _LabelFile:
    """The form of TOML, and of JSON with the same fields."""

    # Names, or a table from the name in the data to a phrase or a list of them.
    labels: tuple[str, ...] | dict[str, str | tuple[str, ...]]
    templates: tuple[str, ...] | None = None


def labels_from(text: str) -> LabelSet:
    """Read the classes that a user wrote: `cat,dog`, or the name of a file as `read_labels` takes it.

    What has a comma is a list, in which a name with a comma stands in quotes. What names a file, or looks like one,
    must be there: a misspelt file name never becomes a class.
    """
    looks_like_file = text.lower().endswith(_FILE_SUFFIXES) or os.sep in text or Path(text).is_file()
    if "," not in text and looks_like_file:
        return read_labels(text)
    listed = written_list(text)
    if listed is None:
        try:
            listed = next(csv.reader([text], skipinitialspace=True, strict=True), [])
        except csv.Error as error:
            raise SettingsError(
                f"labels {text!r}: {error}; close every quote, as in '\"hot dog\",cat'"
            ) from None
    names = (name.strip() for name in listed)
    return LabelSet.of(_unquoted(name) for name in names if name)


def remark_on_numbers(labels: LabelSet) -> str | None:
    """Return a remark if every class is called by a number, which says nothing to a model; None otherwise."""
    if not all(name.isdecimal() for name in labels.names):
        return None
    return (
        f"the data calls its classes by numbers ({labels.names[0]} to {labels.names[-1]}), and the model was asked for "
        'these as words: if they stand for names, give a TOML file of [labels] with lines such as 0 = "cat" '
        "(--labels-file), or name the published dataset (--data benchmark:NAME --root FOLDER)"
    )


def _unquoted(name: str) -> str:
    return name[1:-1].strip() if len(name) > 2 and name[0] == name[-1] == "'" else name


def read_labels(path: str | Path) -> LabelSet:
    """Read classes from a file: text with one name a line, TOML, JSON, or a CSV or TSV table.

    TOML and JSON hold `labels`, a list of names or a table from the name in the data to a phrase or several
    (`n02119789 = ["kit fox", "swift fox"]`), and optionally `templates`, a list with `{}` in each. In JSON that list
    or table may stand alone, and ImageNet's class index is read. Of a table, the column of the names is read, or a
    phrase beside each name.

    Raises:
        DataError: the file is missing or empty. SettingsError: it holds something else.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such label file; expected {_EXPECTED}")
    match file.suffix.lower():
        case ".toml":
            return label_set(config.read_toml(file), str(file))
        case ".json":
            content = read_json(file)
            if (
                isinstance(content, dict)
                and "labels" in content
                and isinstance(content["labels"], list | dict)
            ):
                return label_set(content, str(file))
            return _from_phrases(file, phrases_in_json(content, file))
        case ".csv" | ".tsv":
            return _from_phrases(file, phrases_in_table(file))
        case "" | ".txt":
            names = read_lines(file)
            if not names:
                raise DataError(f"{file}: no labels in it; expected one a line")
            return _at(file, LabelSet.of, names)
    raise SettingsError(f"{file}: a {file.suffix} file is not read as labels; expected {_EXPECTED}")


def _from_phrases(file: Path, phrases: Phrases) -> LabelSet:
    if not phrases:
        raise DataError(f"{file}: no labels in it; expected {_EXPECTED}")
    named = LabelSet.of(phrases)
    ways = zip(phrases.values(), named.phrases, strict=True)
    return _at(file, lambda names: LabelSet(names, tuple(own or usual for own, usual in ways)), named.names)


def label_set(values: Mapping[str, Any], where: str) -> LabelSet:
    """Build the classes from the `labels` and `templates` of a TOML or JSON file; `where` names it in errors.

    Raises:
        SettingsError: a value is unknown, missing or of another type, or a class has no phrase.
    """
    content = config.build(_LabelFile, values, where)
    templates = None
    if content.templates is not None:
        templates = check_templates(content.templates, where)
    if isinstance(content.labels, tuple):
        named = _at(where, LabelSet.of, content.labels)
        return LabelSet(named.names, named.phrases, templates)
    phrases = tuple((value,) if isinstance(value, str) else value for value in content.labels.values())
    for name, ways in zip(content.labels, phrases, strict=True):
        if not ways:
            raise SettingsError(f"{where}: the label {name!r} has no phrase")
    return _at(where, lambda names: LabelSet(names, phrases, templates), tuple(content.labels))


def _at(where: str | Path, make: Callable[[tuple[str, ...]], LabelSet], names: tuple[str, ...]) -> LabelSet:
    try:
        return make(names)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None
