"""What `diptych doctor RECIPE` looks at in the data: can they be read, and is there something to learn from them?"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diptych.data.example import Example
from diptych.data.images.transforms import Preprocess
from diptych.data.left_out import left_out_of
from diptych.data.loader import group_id
from diptych.data.sources.opening import Source, expand
from diptych.data.subsets.labelled import label_of
from diptych.doctor.machine_checks import Check
from diptych.doctor.same_image_checks import OFTEN, same_image_checks
from diptych.errors import DataError, DiptychError
from diptych.models.architectures import LabelHead
from diptych.tokenizer import default_tokenizer
from diptych.training.approaches import TASKS
from diptych.training.first_loss import guessing_loss
from diptych.training.settings import Recipe
from diptych.wording import count_of, percent

ROWS = 2_000  # rows whose words are looked at, spread evenly over the data
PICTURES = 64  # of which this many are decoded
STUCK = 0.9  # of ln N: a least loss from which on there is next to nothing to learn
READ_AT_ONCE = 1 << 30  # bytes: smaller data are in the system's memory after one epoch, in however few files
PREDICTING = ("captioning", "word-prediction", "language")  # objectives without negatives

Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Seen:
    """The rows that were looked at."""

    examples: Sequence[Example]
    unreadable: Sequence[str]  # the messages


def data_checks(recipe: Recipe, source: Source, weights: Weights) -> Iterator[Check]:
    """Each check as soon as it is done."""
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
    yield from _pictures(source, seen.examples, recipe)
    yield from same_image_checks(recipe, source, used.tolist())
    yield from _words(seen.examples, recipe)


def _left_out(source: Source, described: str) -> Iterator[Check]:
    """What the data's folders and shards hold that no run will use; the words are those of every command."""
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


def _unreadable(seen: _Seen) -> Check:
    bad, total = len(seen.unreadable), len(seen.examples) + len(seen.unreadable)
    if bad and bad == total:
        return Check(
            "unreadable rows",
            "fail",
            f"all of the {total:,} rows looked at; the first: {seen.unreadable[0]}; "
            "paths in a table are relative to the table",
        )
    first = f"; the first: {seen.unreadable[0]}" if bad else ""
    return _share("unreadable rows", bad, total, f"repair or remove them{first}")


def _pictures(source: Source, examples: Sequence[Example], recipe: Recipe) -> Iterator[Check]:
    preprocess = Preprocess(recipe.model.resolve().image.resolution)
    chosen = [examples[place] for place in _spread(range(len(examples)), PICTURES)]
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


def _words(examples: Sequence[Example], recipe: Recipe) -> Iterator[Check]:
    if not TASKS[recipe.objective.name].needs_captions:
        return
    if recipe.finetune is not None and recipe.finetune.method not in ("contrastive", "lit", "lora"):
        labels = [
            label_of(example, recipe.data.label_from) or "".join(example.tags) or None for example in examples
        ]
        missing = labels.count(None)
        yield _share("no label", missing, len(examples), "label them, or take them out; a run refuses them")
        return
    if isinstance(recipe.model.resolve().text, LabelHead):
        where = recipe.data.label_from
        labels = [label_of(example, where) for example in examples]
        yield _share("no label", labels.count(None), len(examples), "they are passed over")
        return
    captions = [example.captions[0] for example in examples if example.captions]
    yield _share("no caption", len(examples) - len(captions), len(examples), "they are passed over")
    if not captions:
        yield Check("captions", "fail", "no row has a caption; name the column with data.caption_column")
        return
    # The start and the end token take two places.
    room = recipe.model.resolve().text.context_length - 2
    tokenizer = default_tokenizer()
    lengths = [len(tokenizer.encode(caption)) for caption in captions]
    yield _share(
        "cut captions",
        sum(length > room for length in lengths),
        len(captions),
        f"they have more than {room} tokens, the longest {max(lengths)}; raise the model's context_length",
    )
    if recipe.objective.name in PREDICTING:
        yield _texts_to_predict(captions)
        return
    yield _same_words(captions, recipe)
    yield _something_to_learn(captions, recipe)


def _same_words(captions: Sequence[str], recipe: Recipe) -> Check:
    """How many other pairs of a batch have the same caption: false negatives, unless they are made positives."""
    counts = Counter(map(group_id, captions))
    in_batch = 1 - math.exp(-_meeting(counts) * (recipe.training.batch_size - 1))
    repeated = sum(count for count in counts.values() if count > 1) / len(captions)
    detail = (
        f"{percent(repeated)} of captions occur again; about {percent(in_batch)} of the pairs of a batch "
        "meet another with their caption"
    )
    positives = recipe.objective.positives
    if in_batch > OFTEN and positives in ("pair", "image"):
        better = "caption" if positives == "pair" else "caption-or-image"
        return Check(
            "same captions", "warn", f'{detail}, as a wrong answer; set objective.positives = "{better}"'
        )
    return Check("same captions", "ok", detail)


def _texts_to_predict(captions: Sequence[str]) -> Check:
    """Whether there is more than one caption: equal ones are no wrong answers to those who predict them."""
    common, count = Counter(" ".join(caption.split()) for caption in captions).most_common(1)[0]
    detail = f"{len(set(captions)):,} captions of {len(captions):,} are distinct"
    if count > STUCK * len(captions):
        return Check(
            "something to learn",
            "fail",
            f"{detail}; {count:,} are {common[:40]!r}: name the column of the captions with data.caption_column",
        )
    return Check("something to learn", "ok", detail)


def _something_to_learn(captions: Sequence[str], recipe: Recipe) -> Check:
    """Whether captions differ enough for a loss below that of guessing."""
    batch = recipe.training.batch_size
    guessing = guessing_text(recipe)
    if recipe.data.permute_captions:
        return Check(
            "something to learn",
            "warn",
            f"data.permute_captions is on: pictures have the words of others, and the loss stays "
            f"{'where it starts' if guessing is None else f'near {guessing}'}, which is the purpose of that control; "
            "for a model, switch it off",
        )
    least = least_loss(captions, batch)
    if guessing is None:
        detail = "what guessing costs depends on the teacher or the classes"
    elif recipe.model.init == "scratch":
        detail = f"the loss starts at {guessing}"
    else:
        detail = f"guessing would give a loss of {guessing}"
    if guessing is not None and guessing.startswith("ln "):
        # Other losses have another floor.
        detail += f"; equal captions keep it above about {least:.2f}"
    if least > STUCK * math.log(batch):
        common, count = Counter(" ".join(caption.split()) for caption in captions).most_common(1)[0]
        return Check(
            "something to learn",
            "fail",
            f"{detail}, so it is stuck; {count:,} of {len(captions):,} captions are {common[:40]!r}: name the column "
            "of the captions with data.caption_column",
        )
    return Check("something to learn", "ok", detail)


def guessing_text(recipe: Recipe) -> str | None:
    """Return the loss of a model that cannot tell anything apart, as `ln 128 = 4.85` or a number; None if unknown."""
    loss, batch = guessing_loss(recipe, recipe.model.resolve()), recipe.training.batch_size
    if loss is None:
        return None
    return f"ln {batch:,} = {loss:.2f}" if math.isclose(loss, math.log(batch)) else f"{loss:.2f}"


def least_loss(captions: Sequence[str], batch: int) -> float:
    """The loss of a perfect model: it cannot tell equal captions apart, so one of k in a batch costs it ln k.

    captions: a sample of the data. The mean over its rows of ln(1 + the expected number of others in a batch with the
    same caption), which by Jensen's inequality is a little too much.
    """
    counts = Counter(map(group_id, captions))
    others = max(1, len(captions) - 1)
    return sum(count * math.log1p((batch - 1) * (count - 1) / others) for count in counts.values()) / len(
        captions
    )


def _meeting(counts: Counter[int]) -> float:
    """The probability that two rows have the same caption."""
    total = counts.total()
    return sum(count * (count - 1) for count in counts.values()) / max(1, total * (total - 1))


def _look(source: Source, positions: Sequence[int]) -> _Seen:
    examples: list[Example] = []
    unreadable: list[str] = []
    for position in positions:
        try:
            examples.append(source[position])
        except (DataError, OSError) as error:
            unreadable.append(str(error))
    return _Seen(examples, unreadable)


def _bytes_of(train: str | tuple[str, ...]) -> int:
    """Of local shards; 0 where they cannot be listed, as what is elsewhere or inside the package."""
    try:
        found = [path for place in ((train,) if isinstance(train, str) else train) for path in expand(place)]
        local = [path for path in found if isinstance(path, Path)]
        shards = [shard for path in local for shard in (path.glob("*.tar") if path.is_dir() else (path,))]
        return sum(shard.stat().st_size for shard in shards)
    except (DiptychError, OSError):
        return 0


def _share(name: str, count: int, total: int, remedy: str) -> Check:
    detail = f"{count:,} of {total:,} rows looked at ({percent(count / max(1, total))})"
    return Check(name, "warn", f"{detail}; {remedy}") if count else Check(name, "ok", detail)


def _spread(rows: Sequence[int], count: int) -> list[int]:
    """At most `count` of `rows`, evenly spread."""
    return [rows[place] for place in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
