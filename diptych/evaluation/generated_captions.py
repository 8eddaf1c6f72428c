"""Captions that a model writes of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from diptych.embed.encode import ImageInput, Preprocessing, Progress
from diptych.errors import SettingsError
from diptych.models.capabilities import WritesCaptions, lacks
from diptych.models.heads.generation import beam_search, sample
from diptych.models.image_model import ImageModel
from diptych.tokenizer import default_tokenizer


class Caption(TypedDict):
    """An image and what the model says of it."""

    image: str
    caption: str
    log_likelihood: float  # of the whole caption, in nats


def write_captions(
    model: ImageModel,
    preprocess: Preprocessing,
    images: Sequence[ImageInput],
    *,
    beams: int = 5,
    nucleus: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Caption]:
    """Write a caption of each image: the likeliest that a search with `beams` open texts finds, or a drawn one.

    nucleus: the probability of the words among which each next one is drawn (0.9 in VirTex); no search then. seed: of
    the draws, with an image's place in the list.

    Raises:
        SettingsError: the model writes no captions, or not from left to right.
        ImageError: an image cannot be read.
    """
    writer = model.caption_writer
    if writer is None:
        raise lacks(model, "writes captions")
    if beams < 1:
        raise SettingsError(f"beams = {beams}: expected at least 1")
    if nucleus is not None and not 0 < nucleus <= 1:
        raise SettingsError(f"nucleus = {nucleus}: expected above 0 and at most 1")
    found = []
    for number, image in enumerate(images):
        with torch.inference_mode():
            pixels = preprocess(image)[None].to(model.device)
            draws = torch.Generator().manual_seed((seed << 20) + number)
            text, likelihood = _written(writer, writer.cells(pixels)[0], beams, nucleus, draws)
        name = image if isinstance(image, str | Path) else f"image {number}"
        found.append(Caption(image=str(name), caption=text, log_likelihood=likelihood))
        if progress is not None:
            progress(1)
    return found


def _written(
    writer: WritesCaptions, cells: Tensor, beams: int, mass: float | None, draws: torch.Generator
) -> tuple[str, float]:
    """Return the text of one image's cells, and its log p."""

    def next_word(prefixes: Tensor) -> Tensor:
        return writer.next_word(cells, prefixes.to(cells.device)).float().cpu()

    end = writer.words.rows - 1
    if mass is None:
        rows, likelihood = beam_search(next_word, end - 1, end, beams, writer.context_length)
    else:
        rows = sample(next_word, end - 1, end, mass=mass, longest=writer.context_length, generator=draws)
        steps = (next_word(torch.tensor([rows[:place]]))[0, rows[place]] for place in range(1, len(rows)))
        likelihood = float(sum(steps))
    inner = [row for row in rows if row < end - 1]
    return default_tokenizer().decode(writer.words.ids_of(inner)).strip(), likelihood
