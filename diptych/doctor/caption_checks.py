"""Check the captions and labels of training data: are they there, and is there something to learn from them?"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from diptych.data.example import Example
from diptych.data.subsets.labelled import label_of
from diptych.data.text_sampling import group_id
from diptych.doctor.check import Check, share_check
from diptych.doctor.false_negatives import false_negatives
from diptych.tokenizer import default_tokenizer
from diptych.training.settings import Recipe
from diptych.wording import percent

STUCK = 0.9  # of ln N: a least loss from which on there is next to nothing to learn


def caption_checks(examples: Sequence[Example], recipe: Recipe) -> Iterator[Check]:
    """Check what the rows that were looked at say about their images."""
    if not recipe.approach.needs_captions:
        return
    if recipe.finetune is not None and recipe.finetune.method not in ("contrastive", "lit", "lora"):
        labels = [
            label_of(example, recipe.data.label_from) or "".join(example.tags) or None for example in examples
        ]
        missing = labels.count(None)
        yield share_check(
            "no label", missing, len(examples), "label them, or take them out; a run refuses them"
        )
        return
    if recipe.model.resolve().label_head is not None:
        where = recipe.data.label_from
        labels = [label_of(example, where) for example in examples]
        yield share_check("no label", labels.count(None), len(examples), "they are passed over")
        return
    captions = [example.captions[0] for example in examples if example.captions]
    yield share_check("no caption", len(examples) - len(captions), len(examples), "they are passed over")
    if not captions:
        yield Check("captions", "fail", "no row has a caption; name the column with data.caption_column")
        return
    # The start and the end token take two places.
    room = recipe.model.resolve().text.context_length - 2
    tokenizer = default_tokenizer()
    lengths = [len(tokenizer.encode(caption)) for caption in captions]
    yield share_check(
        "cut captions",
        sum(length > room for length in lengths),
        len(captions),
        f"they have more than {room} tokens, the longest {max(lengths)}; raise the model's context_length",
    )
    if not recipe.approach.has_negatives:
        yield _texts_to_predict(captions)
        return
    yield _same_words(captions, recipe)
    yield _something_to_learn(captions, recipe)


def _same_words(captions: Sequence[str], recipe: Recipe) -> Check:
    """Return how many other pairs of a batch have the same caption."""
    counts = Counter(map(group_id, captions))
    repeated = sum(count for count in counts.values() if count > 1) / len(captions)
    return false_negatives(
        recipe, "caption", f"{percent(repeated)} of captions occur again", _meeting(counts)
    )


def _texts_to_predict(captions: Sequence[str]) -> Check:
    """Return whether there is more than one caption; an objective that predicts them has no wrong answers."""
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
    """Return whether captions differ enough for a loss below that of guessing."""
    batch = recipe.training.batch_size
    guessing = guessing_text(recipe)
    if recipe.data.permute_captions:
        return Check(
            "something to learn",
            "warn",
            f"data.permute_captions is on: images have the words of others, and the loss stays "
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
    batch = recipe.training.batch_size
    loss = recipe.approach.guessing_loss(recipe.objective, batch, recipe.model.resolve())
    if loss is None:
        return None
    return f"ln {batch:,} = {loss:.2f}" if math.isclose(loss, math.log(batch)) else f"{loss:.2f}"


def least_loss(captions: Sequence[str], batch: int) -> float:
    """Return the loss of a perfect model: it cannot tell equal captions apart, so one of k in a batch costs ln k.

    captions: a sample of the data. The mean over its rows of ln(1 + the expected number of others in a batch with the
    same caption), which by Jensen's inequality is a little too much.
    """
    counts = Counter(map(group_id, captions))
    others = max(1, len(captions) - 1)
    return sum(count * math.log1p((batch - 1) * (count - 1) / others) for count in counts.values()) / len(
        captions
    )


def _meeting(counts: Counter[int]) -> float:
    """Return the probability that two rows have the same caption."""
    total = counts.total()
    return sum(count * (count - 1) for count in counts.values()) / max(1, total * (total - 1))
