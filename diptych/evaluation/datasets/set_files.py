"""Read the TOML file of a published dataset in `sets/`: its facts, the names of its classes and its templates.

A class is named as the data names it, beside the words that stand for it in a prompt.
"""

from functools import cache
from importlib import resources

from diptych.config import Values, nearest, read_toml
from diptych.errors import SettingsError
from diptych.evaluation.zero_shot.class_labels import LabelSet, label_set

_FOLDER = resources.files(__package__) / "sets"


@cache
def set_names() -> tuple[str, ...]:
    """Return the names of all published datasets, in alphabetical order."""
    names = (file.name.removesuffix(".toml") for file in _FOLDER.iterdir() if file.name.endswith(".toml"))
    return tuple(sorted(names))


def set_values(name: str) -> Values:
    """Read the file of the dataset `name`.

    Raises:
        SettingsError: there is no such dataset; the message names the nearest one.
    """
    if name not in set_names():
        raise SettingsError(f"dataset {name!r}: {nearest(name, set_names())}")
    with resources.as_file(_FOLDER / f"{name}.toml") as file:
        return read_toml(file)


@cache
def names_of(name: str) -> LabelSet:
    """Return the classes of a dataset: their names in the data, their words, and the templates of its own file.

    Raises:
        SettingsError: the file lists no classes.
    """
    values = {key: value for key, value in set_values(name).items() if key in ("labels", "templates")}
    if isinstance(values.get("templates"), str):  # the name of a set in `prompts.py`
        del values["templates"]
    return label_set(values, f"{name}.toml")
