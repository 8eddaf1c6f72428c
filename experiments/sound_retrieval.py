"""Sounds and texts of the same scenes, found by each other: SHRe's measure of a transfer that nobody trained."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from diptych.data.example import Example
from diptych.data.scenes.sounds import hear_example
from diptych.data.sources.opening import Source
from diptych.embed.encode import embed_texts
from diptych.embed.source_rows import count_reasons
from diptych.evaluation.metrics import Floats, chance_within, first_relevant, share_within, wilson
from diptych.evaluation.retrieval import CUTOFFS, relevant_rows
from diptych.evaluation.survey import survey
from diptych.evaluation.task_report import Report, Scores
from diptych.models.capabilities import lacks
from diptych.models.image_model import ImageModel

_AT_ONCE = 256


class _Row(NamedTuple):
    sound: Floats
    captions: tuple[str, ...]


def evaluate_sound_retrieval(model: ImageModel, source: Source, *, model_name: str) -> Report:
    """R@1, R@5, R@10 and the median rank of texts by sounds, and of sounds by texts.

    An example's first caption is its text; texts that are equal are right for each other's sounds. Guessing has a
    median rank of half the number of examples.

    Raises:
        DataError: an example has no sound.
        SettingsError: the model hears nothing.
    """
    encoder = model.sound_encoder
    if encoder is None:
        raise lacks(model, "hears")
    listen = partial(hear_example, frames=encoder.sound_frames, bands=encoder.sound_bands)

    def pick(example: Example) -> _Row:
        return _Row(listen(example), example.captions[:1])

    rows = survey(source, pick)
    heard = [row for row in rows.picked.values() if row.captions]
    device = model.device
    with torch.inference_mode():
        parts = [
            encoder.encode_sound(
                torch.from_numpy(np.stack([row.sound for row in heard[start : start + _AT_ONCE]])).to(device)
            )
            for start in range(0, len(heard), _AT_ONCE)
        ]
        sounds = F.normalize(torch.cat(parts).float(), dim=1).cpu().numpy()
    captions = [row.captions for row in heard]
    texts = embed_texts(model, [words[0] for words in captions], truncate=True)
    of_sound, of_text = relevant_rows(captions)
    metrics, confidence, chance = {}, {}, {}
    for name, queries, gallery, relevant in (
        ("sound_to_text", sounds, texts, of_sound),
        ("text_to_sound", texts, sounds, of_text),
    ):
        ranks, _ = first_relevant(queries, gallery, relevant)
        for k in CUTOFFS:
            metrics[f"{name}_r{k}"] = share_within(ranks, k)
            confidence[f"{name}_r{k}"] = wilson(metrics[f"{name}_r{k}"], len(ranks))
            chance[f"{name}_r{k}"] = float(
                np.mean([chance_within(len(right), len(gallery), k) for right in relevant])
            )
        metrics[f"{name}_median_rank"] = float(np.median(ranks)) + 1
        chance[f"{name}_median_rank"] = (len(gallery) + 1) / 2
    return Report(
        task="sound-retrieval",
        model=model_name,
        data=source.name,
        scores=Scores(count=len(heard), metrics=metrics, confidence=confidence, chance=chance),
        skipped=count_reasons(rows.skipped),
    )
