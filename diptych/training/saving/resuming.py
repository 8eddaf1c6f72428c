"""Whether a run that goes on is the run that was started: the same settings, and the same data."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diptych.config import build, plain
from diptych.data.loader import Loader
from diptych.data.sources.folder import FolderSource
from diptych.data.subsets.held_out import held_out
from diptych.data.subsets.labelled import labels_of
from diptych.errors import SettingsError
from diptych.training.feeding import open_whole, split_of
from diptych.training.settings import Recipe
from diptych.training.unread import without_unread

_MOST_NAMED = 5
_NO_PART = "data.workers"  # the number of threads that read does not change what is trained


def refuse_other_settings(asked: Path, before: Mapping[str, Any], recipe: Recipe) -> None:
    """Raise `SettingsError` that names each setting in which a run differs from the one that was started.

    asked: the file with the settings before, which may be of an older version: what it lacks has its default, and
        what only other approaches and optimizers read, which older versions wrote too, does not count.
    """
    found = list(_differences(as_written_now(before, asked), plain(recipe), ""))
    if found:
        more = f", and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        hint = (
            ""
            if recipe.finetune is None
            else " (diptych finetune takes them from the data, which may have changed)"
        )
        raise SettingsError(
            f"{asked}: the run was started with other settings: {'; '.join(found[:_MOST_NAMED])}{more}{hint}. Resume "
            "with the recipe that it was started with, or name another folder with --out"
        )


def as_written_now(before: Mapping[str, Any], place: Path) -> Mapping[str, Any]:
    """Return plain settings, which an older version may have written to `place`, as this version writes them.

    A setting that is gone stays in them, as one that differs.
    """
    with contextlib.suppress(SettingsError):
        before = plain(build(Recipe, without_unread(before, before), str(place)))
    return before


def _differences(before: Any, wanted: Any, name: str) -> Iterator[str]:
    """Yield `section.key was X, is now Y` for every setting that differs."""
    if name == _NO_PART:
        return
    if isinstance(before, Mapping) and isinstance(wanted, Mapping):
        for key in [*before, *(key for key in wanted if key not in before)]:
            yield from _differences(before.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    elif before != wanted:
        yield f"{name} was {_short(before)}, is now {_short(wanted)}"


def _short(value: Any) -> str:
    text = "not set" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def data_of(loader: Loader) -> dict[str, Any]:
    """Return what a checkpoint notes of the data that its run has read: JSON."""
    return {
        "name": loader.source.name,
        "fingerprint": loader.source.fingerprint,
        "examples": len(loader.source),
        "used": int((loader.weights > 0).sum()),
        "rows": hashlib.sha256(np.packbits(loader.weights > 0).tobytes()).hexdigest()[:16],
    }


def refuse_other_data(
    run: Path, before: Mapping[str, Any] | None, loader: Loader, recipe: Recipe, say: Callable[[str], None]
) -> None:
    """Raise `SettingsError` where a run would go on with other data than it was started with, or hold out others.

    before: `data_of` the run until now; None for one of an older version, about which a line is said.
    """
    now = data_of(loader)
    if before is None:
        if recipe.data.validation and not _holds_out_as_before(recipe):
            raise SettingsError(
                f"{run}: the run was started by an older Diptych, which held out other examples of {now['name']}, so "
                "that most of those that are held out now have been trained on. Start a new run with --out"
            )
        say(
            f"{run}: does not say which data it was started with, so whether {now['name']} is the same was not checked"
        )
        return
    noted = ("fingerprint", "used", "rows")
    if [before.get(name, now[name]) for name in noted] == [now[name] for name in noted]:
        return
    counts = (
        f"{before['used']:,} of {before['examples']:,} examples used then, "
        f"{now['used']:,} of {now['examples']:,} now"
    )
    # What is held out of the new data may be among what the checkpoint was trained on.
    hint = "" if recipe.data.validation else ", whose [model] init may name this run's newest checkpoint"
    raise SettingsError(
        f"{run}: the run was started with other data: {before['name']} has changed since ({counts}). Resume with the "
        f"data as they were, or start a new run with --out{hint}"
    )


def _holds_out_as_before(recipe: Recipe) -> bool:
    """Return whether an older version surely held out the same: of folders of classes, where near copies did not count.

    The keys of tables and packed shards have changed since, and the labels of folders with captions.
    """
    source, _ = open_whole(recipe.data)
    if not isinstance(source, FolderSource) or not recipe.approach.trains_classifier:
        return False
    before = held_out(*labels_of(source, recipe.data.label_from), recipe.data.validation)
    return np.array_equal(before, split_of(recipe.data, source).held_out)
