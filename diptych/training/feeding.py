"""From a recipe's `[data]` to the batches of this process."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diptych.data.canvas import canvas_for
from diptych.data.labelled import Labelled, few_of_each
from diptych.data.loader import Hear, Loader, Tokenize, example_weights
from diptych.data.mixture import open_mixture
from diptych.data.permuted import PermutedCaptions
from diptych.data.sounds import hear
from diptych.data.sources import Source, open_source
from diptych.data.transforms import Preprocess
from diptych.distributed import world
from diptych.errors import DataError
from diptych.models.clip import CLIP
from diptych.models.label_head import LabelHead
from diptych.models.shared_encoder import SharedEncoder
from diptych.tokenizer import tokenize
from diptych.training.settings import DataSettings, Recipe
from diptych.training.tasks import TASKS


def open_training_data(
    recipe: Recipe, model: CLIP, preprocess: Preprocess, say: Callable[[str], None]
) -> Loader:
    """The loader that the recipe asks for. say: gets one line about what was found."""
    data, training = recipe.data, recipe.training
    needs_captions = TASKS[recipe.objective.name].needs_captions
    source, weights = open_examples(data)
    if data.labels_per_class is not None:
        weights = few_of_each(source, weights, data.label_from, data.labels_per_class, training.seed)
    if isinstance(model.text, LabelHead):
        source = Labelled(source, data.label_from, required=needs_captions)
    if data.permute_captions:
        source = PermutedCaptions(source, training.seed)
    used = int((weights > 0).sum())
    say(f"{source.describe()}; {used:,} of {len(source):,} used")
    return Loader(
        source=source,
        canvas=canvas_for(recipe.augmentation, preprocess),
        tokenize=_ids_of(model),
        batch_size=training.batch_size,
        seed=training.seed,
        weights=weights,
        text=data.text,
        workers=data.workers,
        cache=data.cache,
        most_bad=data.most_bad,
        needs_captions=needs_captions,
        hear=_hearing(model),
        world=world(),
    )


def _hearing(model: CLIP) -> Hear | None:
    """How the model's sounds are read; None where it hears none."""
    if not isinstance(model.text, SharedEncoder) or model.text.sounds is None:
        return None
    return partial(hear, frames=model.text.sound_frames, bands=model.text.sound_bands)


def _ids_of(model: CLIP) -> Tokenize:
    if isinstance(model.text, LabelHead):
        return _numbered(model.text.classes)
    context = model.context_length
    return lambda texts: tokenize(texts, context_length=context, truncate=True)


def _numbered(classes: Sequence[str]) -> Tokenize:
    """From names of classes to their numbers, (texts, 1); -1 for no name."""
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


def open_examples(data: DataSettings) -> tuple[Source, npt.NDArray[np.float64]]:
    """What a recipe trains on, and how often each example of it is seen in an epoch."""
    columns = {"image_column": data.image_column, "caption_column": data.caption_column}
    if data.mixture:
        mixture = open_mixture(data.mixture, **columns)
        return mixture, mixture.weights * example_weights(
            mixture, data.weight_by, data.weights, data.hold_out
        )
    source = open_source(data.train, **columns)
    return source, example_weights(source, data.weight_by, data.weights, data.hold_out)
