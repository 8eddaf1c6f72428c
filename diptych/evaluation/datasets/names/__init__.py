"""What each dataset's classes are called, in the data and in words: one label file a set."""

from pathlib import Path

from diptych.evaluation.zero_shot.class_labels import LabelSet, read_labels

_FOLDER = Path(__file__).parent


def names_of(name: str) -> LabelSet:
    """The classes of one of the sets: their names in the data, their words, and the published templates."""
    return read_labels(_FOLDER / f"{name}.toml")
