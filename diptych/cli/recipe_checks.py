"""What `diptych doctor RECIPE` looks at: is this recipe going to work on these data, before time is spent?"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from diptych.cli.machine_checks import Check, size
from diptych.cli.output import count_of, percent
from diptych.data.example import Example
from diptych.data.loader import example_weights, group_id
from diptych.data.sources import Source, open_source
from diptych.data.transforms import Preprocess
from diptych.errors import DataError, DiptychError
from diptych.models.architectures import Architecture
from diptych.models.clip import CLIP, build_model
from diptych.tokenizer import default_tokenizer
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe

ROWS = 2_000  # rows whose words are looked at, spread evenly over the data
PICTURES = 64  # of which this many are decoded
PROBES = (2, 4)  # pairs in the two forward passes that show how much memory a pair takes


def recipe_checks(location: str, assignments: Sequence[str]) -> Iterator[Check]:
    """Each check as soon as it is done; the ones that need what an earlier one did not find are left out."""
    try:
        recipe = load_recipe(location, tuple(assignments))
        architecture = recipe.model.resolve()
    except DiptychError as error:
        yield Check("recipe", "fail", str(error))
        return
    yield Check("recipe", "ok", f"{location}: every setting is known")
    yield _memory(recipe, architecture)
    yield _evaluation(recipe)
    data = recipe.data
    try:
        source = open_source(data.train, image_column=data.image_column, caption_column=data.caption_column)
        weights = example_weights(source, data.weight_by, data.weights, data.hold_out)
    except DiptychError as error:
        yield Check("data", "fail", str(error))
        return
    used = np.flatnonzero(weights)
    yield Check("data", "ok", f"{source.describe()}; {len(used):,} of {len(source):,} used")
    yield _length_of_run(recipe, float(weights.sum()))
    yield _warmup(recipe)
    examples, unreadable = _read(source, _spread(used.tolist(), ROWS))
    yield _share("unreadable rows", unreadable, len(examples) + unreadable, "repair or remove them")
    yield _pictures(source, examples, architecture)
    yield from _words(examples, recipe, architecture)


def _evaluation(recipe: Recipe) -> Check:
    tasks = recipe.evaluation.tasks
    try:
        counts = [f"{task.name}: {len(open_source(task.data)):,} rows" for task in tasks]
    except DiptychError as error:
        return Check("evaluation", "fail", str(error))
    return Check(
        "evaluation", "ok", "; ".join(counts) if tasks else "no tasks: only the loss will be recorded"
    )


def _length_of_run(recipe: Recipe, rows_an_epoch: float) -> Check:
    training = recipe.training
    steps, batch = training.total_steps, training.batch_size
    detail = (
        f"{steps:,} steps of {batch:,} pairs: {count_of(steps * batch)} pairs, "
        f"{steps * batch / rows_an_epoch:.1f} times the data"
    )
    if batch > rows_an_epoch:
        return Check("length", "warn", f"{detail}; a batch holds pairs twice, lower training.batch_size")
    return Check("length", "ok", detail)


def _warmup(recipe: Recipe) -> Check:
    warmup, steps = recipe.schedule.warmup_steps, recipe.training.total_steps
    detail = f"{warmup:,} of {steps:,} steps"
    if warmup >= steps:
        return Check(
            "warm-up",
            "warn",
            f"{detail}: the learning rate never reaches its peak; set schedule.warmup_steps near {max(1, steps // 20)}",
        )
    return Check("warm-up", "ok", detail)


def _pictures(source: Source, examples: Sequence[Example], architecture: Architecture) -> Check:
    preprocess = Preprocess(architecture.image.resolution)
    chosen = [examples[place] for place in _spread(range(len(examples)), PICTURES)]
    bad: list[str] = []
    for example in chosen:
        try:
            preprocess(example.image)
        except (DataError, OSError) as error:
            bad.append(str(error))
    if bad:
        return Check("pictures", "warn", f"{len(bad)} of {len(chosen)} cannot be read; the first: {bad[0]}")
    return Check("pictures", "ok", f"{len(chosen)} of {len(source):,} tried, all can be read")


def _words(examples: Sequence[Example], recipe: Recipe, architecture: Architecture) -> Iterator[Check]:
    captions = [example.captions[0] for example in examples if example.captions]
    yield _share("no caption", len(examples) - len(captions), len(examples), "they are passed over")
    if not captions:
        yield Check("captions", "fail", "no row has a caption; name the column with data.caption_column")
        return
    # The start and the end token take two places.
    room = architecture.text.context_length - 2
    tokenizer = default_tokenizer()
    cut = sum(len(tokenizer.encode(caption)) > room for caption in captions)
    yield _share(
        "cut captions",
        cut,
        len(captions),
        f"they have more than {room} tokens; raise the model's context_length",
    )
    yield _same_words(captions, recipe)


def _same_words(captions: Sequence[str], recipe: Recipe) -> Check:
    """How many other pairs of a batch have the same caption: false negatives, unless they are made positives."""
    counts = Counter(map(group_id, captions))
    meeting = sum(count * (count - 1) for count in counts.values()) / max(
        1, len(captions) * (len(captions) - 1)
    )
    in_batch = 1 - math.exp(-meeting * (recipe.training.batch_size - 1))
    repeated = sum(count for count in counts.values() if count > 1) / len(captions)
    detail = (
        f"{percent(repeated)} of captions occur again; about {percent(in_batch)} of the pairs of a batch "
        "meet another with their caption"
    )
    if recipe.objective.positives == "pair" and in_batch > 0.05:
        return Check(
            "same captions", "warn", f'{detail}, as a wrong answer; set objective.positives = "caption"'
        )
    return Check("same captions", "ok", detail)


def _memory(recipe: Recipe, architecture: Architecture) -> Check:
    with torch.device("meta"):
        model = build_model(architecture)
    # What the weights are does not matter here; drawing them would take seconds.
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.detach().zero_()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    # float32 weights, gradients and AdamW's two moments.
    fixed = 16 * parameters
    few, more = (activation_bytes(model, count, recipe.training.precision) for count in PROBES)
    # A straight line: casts of the weights are kept once, however large the batch.
    activations = few + (more - few) * (recipe.training.batch_size - PROBES[0]) // (PROBES[1] - PROBES[0])
    return Check(
        "memory of the run",
        "ok",
        f"about {size(fixed + activations)}: {size(fixed)} for {count_of(parameters)} parameters in training, "
        f"{size(activations)} for the activations of a batch; the data come on top",
    )


def activation_bytes(model: CLIP, batch: int, precision: str) -> int:
    """Bytes that a forward pass of `batch` pairs keeps for the backward pass, texts at their full length.

    Measured, not derived: every tensor that autograd saves, each storage once, weights left out. What kernels
    use in passing is not in it; for ViT-B/32 and RN50 the process grew by 0.9 to 1.15 times this.
    """
    architecture = model.architecture
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that its address is not given away again
        return tensor

    side = architecture.image.resolution
    tokens = torch.zeros(batch, architecture.text.context_length, dtype=torch.long)
    tokens[:, -1] = architecture.text.vocab_size - 1  # the end token
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        features = model.encode_image(torch.zeros(batch, 3, side, side)), model.encode_text(tokens)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    del features
    return sum(storage.nbytes() for address, storage in kept.items() if address not in weights)


def _read(source: Source, positions: Sequence[int]) -> tuple[list[Example], int]:
    examples: list[Example] = []
    for position in positions:
        try:
            examples.append(source[position])
        except (DataError, OSError):
            continue
    return examples, len(positions) - len(examples)


def _share(name: str, count: int, total: int, remedy: str) -> Check:
    detail = f"{count:,} of {total:,} rows looked at ({percent(count / max(1, total))})"
    return Check(name, "warn", f"{detail}; {remedy}") if count else Check(name, "ok", detail)


def _spread(rows: Sequence[int], count: int) -> list[int]:
    """At most `count` of `rows`, evenly spread."""
    return [rows[place] for place in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
