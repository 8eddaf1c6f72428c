"""The classes of a zero-shot task: what the data calls them, and the words for each."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from diptych import config
from diptych.data.example import caption_lines, decode_text
from diptych.errors import DataError, SettingsError
from diptych.evaluation.prompts import check_templates

_FILE_SUFFIXES = (".txt", ".toml")


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
        """Classes that are called by their names; underscores, as folders have them, are read as spaces."""
        unique = tuple(names)
        return cls(unique, tuple((name.replace("_", " "),) for name in unique))


@dataclass(frozen=True)
class _LabelFile:
    """The TOML form."""

    # Names, or a table from the name in the data to a phrase or a list of them.
    labels: tuple[str, ...] | dict[str, str | tuple[str, ...]]
    templates: tuple[str, ...] | None = None


def labels_from(text: str) -> LabelSet:
    """The classes that a user wrote: `cat,dog`, or the name of a file as `read_labels` takes it.

    What has a comma is a list. What names a file, or looks like one, must be there: a misspelt file name
    never becomes a class.
    """
    looks_like_file = text.endswith(_FILE_SUFFIXES) or os.sep in text or Path(text).is_file()
    if "," not in text and looks_like_file:
        return read_labels(text)
    return LabelSet.of(name for name in map(str.strip, text.split(",")) if name)


def read_labels(path: str | Path) -> LabelSet:
    """Classes from a file: text with one name a line, or TOML.

    TOML holds `labels`, a list of names or a table from the name in the data to a phrase or several
    (`n02119789 = ["kit fox", "swift fox"]`), and optionally `templates`, a list with `{}` in each.

    Raises:
        DataError: the file is missing or empty. SettingsError: it holds something else.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such label file; expected text, one label a line, or TOML with `labels`")
    if file.suffix == ".toml":
        return _from_toml(file)
    names = caption_lines(decode_text(file.read_bytes(), str(file)))
    if not names:
        raise DataError(f"{file}: no labels in it; expected one a line")
    return _at(file, LabelSet.of, names)


def _from_toml(file: Path) -> LabelSet:
    content = config.build(_LabelFile, config.read_toml(file), str(file))
    templates = None
    if content.templates is not None:
        templates = check_templates(content.templates, str(file))
    if isinstance(content.labels, tuple):
        named = _at(file, LabelSet.of, content.labels)
        return LabelSet(named.names, named.phrases, templates)
    phrases = tuple((value,) if isinstance(value, str) else value for value in content.labels.values())
    for name, ways in zip(content.labels, phrases, strict=True):
        if not ways:
            raise SettingsError(f"{file}: the label {name!r} has no phrase")
    return _at(file, lambda names: LabelSet(names, phrases, templates), tuple(content.labels))


def _at(file: Path, make: Callable[[tuple[str, ...]], LabelSet], names: tuple[str, ...]) -> LabelSet:
    try:
        return make(names)
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from None
