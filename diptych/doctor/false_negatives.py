"""Check for pairs of a batch that meet their own image or caption as a wrong answer."""

import math
from typing import Literal

from diptych.doctor.check import Check
from diptych.training.settings import Recipe
from diptych.wording import percent

OFTEN = 0.05  # share of the pairs of a batch from which on doctor warns


def false_negatives(recipe: Recipe, shared: Literal["image", "caption"], found: str, chance: float) -> Check:
    """Return whether too many pairs of a batch meet another with their image or their caption.

    found: what the data show of it, in words. chance: the probability that two rows share it.
    """
    name = f"same {shared}s"
    in_batch = 1 - math.exp(-chance * (recipe.training.batch_size - 1))
    what = "of their image" if shared == "image" else "with their caption"
    detail = f"{found}; about {percent(in_batch)} of the pairs of a batch meet another {what}"
    positives, other = recipe.objective.positives, "caption" if shared == "image" else "image"
    if in_batch > OFTEN and positives in ("pair", other):
        better = shared if positives == "pair" else "caption-or-image"
        return Check(name, "warn", f'{detail}, as a wrong answer; set objective.positives = "{better}"')
    return Check(name, "ok", detail)
