"""The classes of a published dataset, and the ways in which copies of it write them."""

import re

from diptych.evaluation.datasets.dataset import dataset_named
from diptych.evaluation.datasets.set_files import names_of
from diptych.evaluation.robustness.natural_shift import SHIFTS, class_map
from diptych.evaluation.zero_shot.class_labels import LabelSet


def classes_of(name: str) -> LabelSet | None:
    """Return the classes of a dataset with their words and its own templates; None if its own names are the words."""
    dataset = dataset_named(name)
    if dataset.labels is None and dataset.labels_of is None:
        return None
    labels = names_of(dataset.labels_of or name)
    # Some classes of another set: a classifier of these alone measures the set correctly.
    if name in SHIFTS and SHIFTS[name].table is not None:
        names = class_map(name).names
    elif dataset.labels_of and dataset.labels:
        names = tuple(dataset.labels)
    else:
        return labels
    phrases = dict(zip(labels.names, labels.phrases, strict=True))
    return LabelSet(names, tuple(phrases[each] for each in names))


def class_spellings(name: str) -> dict[str, str]:
    """Return the name of the class for each way to write one, in the form of `plain_spelling`; empty without classes.

    A class is written as its name, as words that stand for it alone, as the file of the dataset says under `also`, or,
    if it is `numbered`, as its number.
    """
    dataset, labels = dataset_named(name), classes_of(name)
    if labels is None:
        return {}
    known: dict[str, str] = {}
    shared: set[str] = set()
    for each, phrases in zip(labels.names, labels.phrases, strict=True):
        for words in map(plain_spelling, phrases):
            if known.setdefault(words, each) != each:
                shared.add(words)
    for words in shared:
        del known[words]
    if dataset.numbered:
        known |= {str(number): each for number, each in enumerate(labels.names)}
    named = {each: each for each in labels.names}
    return known | {plain_spelling(way): each for way, each in (dataset.also | named).items()}


def plain_spelling(text: str) -> str:
    """Return the letters and digits of a class's name in lower case; a number loses its leading zeros."""
    letters = re.sub(r"[^a-z0-9]", "", text.casefold())
    return str(int(letters)) if letters.isdecimal() else letters
