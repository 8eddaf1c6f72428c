"""From a recipe's `[data]` to the batches of this process."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diptych.data.images.canvas import canvas_for
from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Hear, Loader, Tokenize
from diptych.data.scenes.sounds import hear_example
from diptych.data.sources.opening import Source, open_source
from diptych.data.subsets.labelled import (
    SEPARATOR,
    LabelledSource,
    MultiLabelSource,
    PromptedSource,
    labels_of,
    sample_per_class,
)
from diptych.data.subsets.mixture import open_mixture
from diptych.data.subsets.permuted import ShuffledCaptions
from diptych.data.subsets.split import Split, split
from diptych.data.subsets.weighting import balancing, example_weights
from diptych.distributed import world
from diptych.errors import DataError
from diptych.models.image_model import ImageModel
from diptych.tokenizer import tokenize
from diptych.training.approaches.approach import Approach
from diptych.training.settings import DataSettings, Recipe


def open_training_data(
    recipe: Recipe, model: ImageModel, preprocess: Preprocess, say: Callable[[str], None]
) -> Loader:
    """Return the loader that the recipe asks for. say: gets one line about what was found."""
    data, training = recipe.data, recipe.training
    needs_captions = recipe.approach.needs_captions
    source, weights = open_examples(data, say)
    if data.labels_per_class is not None:
        weights = sample_per_class(source, weights, data.label_from, data.labels_per_class, training.seed)
    if model.architecture.label_head is not None:
        source = LabelledSource(source, data.label_from, required=needs_captions)
    elif recipe.finetune is not None:
        source = _to_finetune(source, recipe)
    if data.permute_captions:
        source = ShuffledCaptions(source, training.seed)
    used = int((weights > 0).sum())
    say(f"{source.describe()}\nused: {used:,} of {len(source):,} rows")
    return Loader(
        source=source,
        canvas=canvas_for(recipe.augmentation, preprocess),
        tokenize=_ids_of(model, recipe.approach),
        batch_size=training.batch_size,
        seed=training.seed,
        weights=weights,
        text=data.text,
        workers=data.workers,
        cache=data.cache,
        most_bad=data.most_bad,
        needs_captions=needs_captions,
        hear=_hearing(model),
        tell_images=recipe.objective.positives in ("image", "caption-or-image"),
        world=world(),
    )


def _to_finetune(source: Source, recipe: Recipe) -> Source:
    """Return the texts that a method learns from: names of classes, sentences about them, or captions as they are."""
    settings, label_from = recipe.finetune, recipe.data.label_from
    assert settings is not None
    if recipe.approach.trains_classifier:
        return (
            MultiLabelSource(source)
            if settings.several
            else LabelledSource(source, label_from, required=True)
        )
    # Words are there where classes are.
    return (
        PromptedSource(source, label_from, settings.words, settings.templates) if settings.words else source
    )


def _hearing(model: ImageModel) -> Hear | None:
    """Return how the model's sounds are read; None where it hears none."""
    encoder = model.sound_encoder
    if encoder is None:
        return None
    return partial(hear_example, frames=encoder.sound_frames, bands=encoder.sound_bands)


def _ids_of(model: ImageModel, approach: Approach[Any]) -> Tokenize:
    if approach.trains_classifier and model.classifier is not None:
        classes = model.classifier.classes
        return _to_flags(classes) if model.classifier.several else _to_indices(classes)
    label_head = model.architecture.label_head
    if label_head is not None:
        return _to_indices(label_head.classes)
    context = model.context_length
    return lambda texts: tokenize(texts, context_length=context, truncate=True)


def _to_indices(classes: Sequence[str]) -> Tokenize:
    """Return a function from names of classes to their indices, (texts, 1); -1 for no name."""
    numbers = {"": -1, **{name: number for number, name in enumerate(classes)}}

    def convert(texts: Sequence[str]) -> Tensor:
        unknown = next((text for text in texts if text not in numbers), None)
        if unknown is not None:
            raise DataError(
                f"the label {unknown!r} is none of the {len(classes)} classes of the model; leave it out of the data, "
                "or set [model.architecture] text = { classes = [] } to have those of the data"
            )
        return torch.tensor([[numbers[text]] for text in texts])

    return convert


def _to_flags(classes: Sequence[str]) -> Tokenize:
    """Return a function from names with `SEPARATOR` between them to a 1 for each named class, (texts, classes)."""
    numbers = {name: number for number, name in enumerate(classes)}

    def convert(texts: Sequence[str]) -> Tensor:
        flags = torch.zeros(len(texts), len(classes), dtype=torch.long)
        for row, text in enumerate(texts):
            for name in text.split(SEPARATOR) if text else ():
                if name not in numbers:
                    raise DataError(
                        f"the label {name!r} is none of the {len(classes)} classes of the model; leave it out of the "
                        "data"
                    )
                flags[row, numbers[name]] = 1
        return flags

    return convert


def table_options(settings: DataSettings) -> dict[str, str | None]:
    """Return the options of `open_source` for a table, by their names there."""
    return {
        "image_column": settings.image_column,
        "caption_column": settings.caption_column,
        "label_column": settings.label_column,
        "delimiter": settings.delimiter,
        "image_root": settings.image_root,
    }


def open_whole(data: DataSettings) -> tuple[Source, npt.NDArray[np.float64]]:
    """Open what `[data]` names, held-out part included. Returns it with the weights of its mixture and metadata."""
    options = table_options(data)
    if data.mixture:
        mixture = open_mixture(data.mixture, **options)
        return mixture, mixture.weights * example_weights(
            mixture, data.weight_by, data.weights, data.hold_out
        )
    source = open_source(data.train, **options)
    return source, example_weights(source, data.weight_by, data.weights, data.hold_out)


def split_of(data: DataSettings, source: Source, say: Callable[[str], None] = lambda _: None) -> Split:
    """Return the held-out part of `open_whole`'s source, as `[data]` says; computed once in a process.

    say: gets what takes long, and what was found, the first time.
    """
    choices = (
        data.label_from,
        data.validation,
        data.near_copies,
        data.group_by,
        *table_options(data).values(),
    )
    # A relative name is another folder from another one.
    place = (source.fingerprint, source.name, os.getcwd(), *choices)
    found = _splits.get(place)
    if found is None:
        found = split(
            source,
            data.validation,
            label_from=data.label_from,
            copies=data.near_copies,
            group_by=data.group_by,
            say=say,
        )
        say(found.describe())
        while len(_splits) >= _SPLITS:
            del _splits[next(iter(_splits))]
        _splits[place] = found
    return found


_SPLITS = 4  # that are kept
_splits: dict[tuple[object, ...], Split] = {}


def open_examples(
    data: DataSettings, say: Callable[[str], None] = lambda _: None
) -> tuple[Source, npt.NDArray[np.float64]]:
    """Open what a recipe trains on. Returns it, and how often an epoch shows each example. say: see `split_of`."""
    source, weights = open_whole(data)
    if data.validation:
        weights = np.where(split_of(data, source, say).held_out, 0.0, weights)
    if data.balance:
        weights = weights * balancing(labels_of(source, data.label_from)[1], weights, data.balance)
    return source, weights
