"""From a recipe's `[data]` to the batches of this process."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from diptych.data.canvas import canvas_for
from diptych.data.loader import Loader, example_weights
from diptych.data.mixture import open_mixture
from diptych.data.permuted import PermutedCaptions
from diptych.data.sources import Source, open_source
from diptych.data.transforms import Preprocess
from diptych.distributed import world
from diptych.models.clip import CLIP
from diptych.tokenizer import tokenize
from diptych.training.settings import DataSettings, Recipe


def open_training_data(
    recipe: Recipe, model: CLIP, preprocess: Preprocess, say: Callable[[str], None]
) -> Loader:
    """The loader that the recipe asks for. say: gets one line about what was found."""
    data, training = recipe.data, recipe.training
    source, weights = open_examples(data)
    if data.permute_captions:
        source = PermutedCaptions(source, training.seed)
    used = int((weights > 0).sum())
    say(f"{source.describe()}; {used:,} of {len(source):,} used")
    context = model.context_length
    return Loader(
        source=source,
        canvas=canvas_for(recipe.augmentation, preprocess),
        tokenize=lambda texts: tokenize(texts, context_length=context, truncate=True),
        batch_size=training.batch_size,
        seed=training.seed,
        weights=weights,
        text=data.text,
        workers=data.workers,
        cache=data.cache,
        most_bad=data.most_bad,
        needs_captions=recipe.objective.name != "simclr",
        world=world(),
    )


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
