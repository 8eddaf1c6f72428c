"""Captions that a model writes of pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from diptych.embed.encode import Picture, Preprocessing, Progress
from diptych.errors import SettingsError
from diptych.models.clip import CLIP
from diptych.models.heads.captioner import Captioner, CellTower
from diptych.models.heads.generation import beam_search, sample
from diptych.tokenizer import default_tokenizer


class Caption(TypedDict):
    """One picture and what the model says of it."""

    image: str
    caption: str
    log_likelihood: float  # of the whole caption, in nats


def write_captions(
    model: CLIP,
    preprocess: Preprocessing,
    images: Sequence[Picture],
    *,
    beams: int = 5,
    nucleus: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Caption]:
    """A caption of each image: the likeliest that a search with `beams` open texts finds, or one that is drawn.

    nucleus: the probability of the words among which each next one is drawn (0.9 in VirTex); no search then. seed: of
    the draws, with an image's place in the list.

    Raises:
        SettingsError: the model writes no captions, or not from left to right.
        ImageError: an image cannot be read.
    """
    captioner = model.text
    if not isinstance(captioner, Captioner) or "forward" not in captioner.directions:
        raise SettingsError(
            f"the model's text side is a {type(captioner).__name__}, which writes no captions; train one with "
            'the objective captioning and text = { decoder_layers = 1, reads = "both" }'
        )
    if beams < 1:
        raise SettingsError(f"beams = {beams}: expected at least 1")
    if nucleus is not None and not 0 < nucleus <= 1:
        raise SettingsError(f"nucleus = {nucleus}: expected above 0 and at most 1")
    tower = CellTower(model.visual)
    found = []
    for number, image in enumerate(images):
        with torch.inference_mode():
            pixels = preprocess(image)[None].to(model.logit_scale.device, model.dtype)
            draws = torch.Generator().manual_seed((seed << 20) + number)
            text, likelihood = _written(captioner, tower(pixels)[0], beams, nucleus, draws)
        name = image if isinstance(image, str | Path) else f"image {number}"
        found.append(Caption(image=str(name), caption=text, log_likelihood=likelihood))
        if progress is not None:
            progress(1)
    return found


def _written(
    captioner: Captioner, cells: Tensor, beams: int, mass: float | None, draws: torch.Generator
) -> tuple[str, float]:
    """The text of one image's cells, and its log p."""

    def next_word(prefixes: Tensor) -> Tensor:
        return captioner.next_word(cells, prefixes.to(cells.device)).float().cpu()

    end = captioner.words.rows - 1
    if mass is None:
        rows, likelihood = beam_search(next_word, end - 1, end, beams, captioner.context_length)
    else:
        rows = sample(next_word, end - 1, end, mass=mass, longest=captioner.context_length, generator=draws)
        steps = (next_word(torch.tensor([rows[:place]]))[0, rows[place]] for place in range(1, len(rows)))
        likelihood = float(sum(steps))
    inner = [row for row in rows if row < end - 1]
    return default_tokenizer().decode(captioner.words.ids_of(inner)).strip(), likelihood
