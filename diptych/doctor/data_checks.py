"""Check training data: can the rows and images be read, and do the run and its workers fit them?"""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diptych.data.example import Example
from diptych.data.files.patterns import expand
from diptych.data.images.transforms import Preprocess
from diptych.data.left_out import left_out_of
from diptych.data.sources.opening import Source
from diptych.doctor.caption_checks import caption_checks
from diptych.doctor.check import Check, share_check
from diptych.doctor.same_image_checks import same_image_checks
from diptych.errors import DataError, DiptychError
from diptych.training.settings import Recipe
from diptych.wording import count_of

ROWS = 2_000  # rows whose words are looked at, spread evenly over the data
IMAGES = 64  # of which this many are decoded
READ_AT_ONCE = 1 << 30  # bytes: smaller data are in the system's memory after one epoch, in however few files

Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Sample:
    """The rows that were looked at."""

    examples: Sequence[Example]
    unreadable: Sequence[str]  # the messages


def data_checks(recipe: Recipe, source: Source, weights: Weights) -> Iterator[Check]:
    """Check the rows that a recipe trains on, and yield each result as soon as it is there."""
    used = np.flatnonzero(weights)
    described = source.describe().replace("\n", "; ")
    yield Check("data", "ok", f"{described}; {len(used):,} of {len(source):,} used")
    yield from _left_out(source, described)
    yield _length_of_run(recipe, float(weights.sum()))
    yield _workers(recipe, source)
    seen = _look(source, _spread(used.tolist(), ROWS))
    yield _unreadable(seen)
    if not seen.examples:
        return
    yield from _images(source, seen.examples, recipe)
    yield from same_image_checks(recipe, source, used.tolist())
    yield from caption_checks(seen.examples, recipe)


def _left_out(source: Source, described: str) -> Iterator[Check]:
    """Yield what the data's folders and shards hold that no run will use, in the words of every command."""
    found = left_out_of(source)
    for remark in found.remarks:
        if remark.removeprefix(f"{source.name}: ") not in described:
            yield Check("data", "warn", remark)
    if lines := found.warnings()[len(found.remarks) :]:
        yield Check("left out", "warn", "; ".join(lines))


def _length_of_run(recipe: Recipe, rows_an_epoch: float) -> Check:
    training = recipe.training
    steps, batch = training.total_steps, training.batch_size
    detail = (
        f"{steps:,} steps of {batch:,} pairs: {count_of(steps * batch)} pairs, "
        f"{steps * batch / rows_an_epoch:.1f} times the data"
    )
    if batch > rows_an_epoch:
        return Check(
            "length",
            "warn",
            f"{detail}; a batch holds pairs twice, set training.batch_size to at most {math.floor(rows_an_epoch):,}",
        )
    return Check("length", "ok", detail)


def _workers(recipe: Recipe, source: Source) -> Check:
    workers, processors = recipe.data.workers, os.cpu_count() or 1
    detail = f"{workers} threads read, on {processors} processors"
    shards = len(getattr(source, "parts", ()))
    if (
        shards
        and shards < workers
        and _bytes_of(recipe.data.train or tuple(recipe.data.mixture)) > READ_AT_ONCE
    ):
        return Check(
            "workers",
            "warn",
            f"{detail}, and share {shards} shard{'s' if shards > 1 else ''}: they wait for each other at one file; "
            f"pack the data into at least {workers} shards, or set data.workers = {shards}",
        )
    if workers > 2 * processors:
        return Check(
            "workers", "warn", f"{detail}; more only get in each other's way, set data.workers = {processors}"
        )
    return Check("workers", "ok", detail)


def _unreadable(seen: _Sample) -> Check:
    bad, total = len(seen.unreadable), len(seen.examples) + len(seen.unreadable)
    if bad and bad == total:
        return Check(
            "unreadable rows",
            "fail",
            f"all of the {total:,} rows looked at; the first: {seen.unreadable[0]}; "
            "paths in a table are relative to the table",
        )
    first = f"; the first: {seen.unreadable[0]}" if bad else ""
    return share_check("unreadable rows", bad, total, f"repair or remove them{first}")


def _images(source: Source, examples: Sequence[Example], recipe: Recipe) -> Iterator[Check]:
    preprocess = Preprocess(recipe.model.resolve().image.resolution)
    chosen = [examples[place] for place in _spread(range(len(examples)), IMAGES)]
    bad: list[str] = []
    contents: set[bytes] = set()
    for example in chosen:
        try:
            contents.add(hashlib.sha256(preprocess(example.image).numpy().tobytes()).digest())
        except (DataError, OSError) as error:
            bad.append(str(error))
    if bad:
        yield Check(
            "pictures",
            "fail" if len(bad) == len(chosen) else "warn",
            f"{len(bad)} of {len(chosen)} cannot be read, repair or remove them; the first: {bad[0]}",
        )
        return
    if len(contents) == 1 and len(chosen) > 1:
        yield Check(
            "pictures",
            "fail",
            f"the {len(chosen)} tried are all equal: nothing can be learned; look at the column of the image",
        )
        return
    yield Check("pictures", "ok", f"{len(chosen)} of {len(source):,} tried, all can be read")


def _look(source: Source, positions: Sequence[int]) -> _Sample:
    examples: list[Example] = []
    unreadable: list[str] = []
    for position in positions:
        try:
            examples.append(source[position])
        except (DataError, OSError) as error:
            unreadable.append(str(error))
    return _Sample(examples, unreadable)


def _bytes_of(train: str | tuple[str, ...]) -> int:
    """Return the size of the local shards; 0 for remote and bundled sources, which cannot be listed."""
    try:
        found = [path for place in ((train,) if isinstance(train, str) else train) for path in expand(place)]
        local = [path for path in found if isinstance(path, Path)]
        shards = [shard for path in local for shard in (path.glob("*.tar") if path.is_dir() else (path,))]
        return sum(shard.stat().st_size for shard in shards)
    except (DiptychError, OSError):
        return 0


def _spread(rows: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of `rows`, evenly spread."""
    return [rows[place] for place in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
