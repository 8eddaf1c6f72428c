"""Refuse settings that a recipe gives and that its run does not read: silently, they would have no effect."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from diptych.errors import SettingsError
from diptych.training.approaches import APPROACHES
from diptych.training.methods import FinetuneMethod, approaches_of
from diptych.training.optim.optimizer_settings import OPTIMIZERS
from diptych.training.settings import OBJECTIVES

# The methods that read a setting of `[finetune]`; a setting that is not named here is read by every method.
METHODS: dict[str, tuple[str, ...]] = {
    "rank": ("lora",),
    "scale": ("lora",),
    "adapts": ("lora",),
    "head": ("head", "full", "lp-ft", "wise-ft", "lora"),
}


def refuse_unread(given: Mapping[str, Any], chosen: Mapping[str, Any], where: str) -> None:
    """Raise `SettingsError` for the first setting in `given` that its run does not read.

    given: the values that somebody wrote, in a file or by assignments; defaults are not among them.
    chosen: the plain values of the recipe, which name the approach, the optimizer and the method.
    """
    for name, kind, choice, readers in _unread(given, chosen):
        known = ", ".join(readers)
        raise SettingsError(
            f"{where} [{name.partition('.')[0]}]: {name} is not read by the {kind} {choice!r}, so it would change "
            f"nothing; it belongs to {known}: leave it out, or choose one of these"
        )


def without_unread(values: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a recipe's plain values without the settings that its run does not read.

    A setting that nothing reads stays, so that `build` refuses it. chosen: see `refuse_unread`.
    """
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for name, *_ in _unread(values, chosen):
        section, _, key = name.partition(".")
        del result[section][key]
    return result


def approach_of_method(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a recipe's plain values whose `[objective]` names an approach that reads its settings.

    In fine-tuning, the method and the data decide on the approach, but only when the run is prepared. Until then it is
    the one that the values name, or else one of the method's. Nothing changes in a recipe that does not fine-tune.
    """
    chosen, objective = choices(values), _table(values, "objective")
    if chosen["finetune"] is None or chosen["objective"] is None:
        return dict(values)
    names = (chosen["objective"], *approaches_of(chosen["finetune"]))
    reading = (name for name in names if objective.keys() <= _names(OBJECTIVES[name]))
    return {**values, "objective": {**objective, "name": next(reading, names[0])}}


def _unread(
    given: Mapping[str, Any], chosen: Mapping[str, Any]
) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Yield a setting's name, what would read it, which of these was chosen, and those that read it."""
    chooses = choices(chosen)
    for section, kind, readers_of in (
        ("objective", "approach", _readers(OBJECTIVES)),
        ("optimizer", "optimizer", _readers(OPTIMIZERS)),
        ("finetune", "method", METHODS),
    ):
        choice = chooses[section]
        for setting in _table(given, section):
            readers = readers_of.get(setting)
            if readers is not None and choice is not None and choice not in readers:
                yield f"{section}.{setting}", kind, choice, readers
    approach = chooses["objective"]
    reading = tuple(name for name, each in APPROACHES.items() if each.reads_texts)
    if approach is None or approach in reading or "finetune" in chosen:
        return
    if "text" in _table(given, "data"):
        yield "data.text", "approach", approach, reading


def choices(values: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the approach, the optimizer and the method that a recipe's plain values name; None for unknown names."""
    named = {
        "objective": (_table(values, "objective").get("name", next(iter(OBJECTIVES))), tuple(OBJECTIVES)),
        "optimizer": (_table(values, "optimizer").get("name", next(iter(OPTIMIZERS))), tuple(OPTIMIZERS)),
        "finetune": (_table(values, "finetune").get("method"), typing.get_args(FinetuneMethod)),
    }
    return {section: name if name in known else None for section, (name, known) in named.items()}


def _readers(tables: Mapping[str, type[Any]]) -> dict[str, tuple[str, ...]]:
    """Return the tables that have each setting, for the settings that not every table has."""
    settings = {setting: None for table in tables.values() for setting in _names(table)}
    found = {
        setting: tuple(name for name, table in tables.items() if setting in _names(table))
        for setting in settings
    }
    return {setting: readers for setting, readers in found.items() if len(readers) < len(tables)}


def _names(table: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(table)}


def _table(values: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    """Return a section of a recipe's plain values; an empty one where it is missing or not a table."""
    found = values.get(section)
    return found if isinstance(found, Mapping) else {}
