"""How many rows of a batch go through a tower at a time: as the recipe says, or as many as fit."""

from collections.abc import Callable

from diptych.models.image_model import ImageModel
from diptych.training.planning.forecast import fitting_chunks
from diptych.training.settings import Recipe
from diptych.training.towers import Chunking


def choose_chunks(
    recipe: Recipe, model: ImageModel, rows: int, device: str, say: Callable[[str], None]
) -> Chunking:
    """Return the chunks of a process's `rows` rows. say: gets what `chunk = "auto"` found.

    Raises:
        SettingsError: not even the smallest chunk fits.
    """
    training = recipe.training
    if training.chunk != "auto":
        return Chunking(training.chunk, training.text_chunk or training.chunk, training.keep)
    found = fitting_chunks(recipe, model, rows, device)
    parts = f"{found.images} rows at a time, {found.keep} graphs kept"
    say(f"chunk = auto: {'the whole batch fits at once' if found.images is None else parts}")
    return found
