"""What a mirrored picture does to its caption: left becomes right (VirTex, section 3.3)."""

import functools

import torch
from torch import Tensor

from diptych.tokenizer import default_tokenizer


def exchange_sides(tokens: Tensor) -> Tensor:
    """The ids with the words "left" and "right" exchanged; twice is the identity.

    Ids of a whole word are exchanged, so that "leftover" and "bright" stay what they are.
    """
    left, right = _sides()
    return torch.where(tokens == left, right, torch.where(tokens == right, left, tokens))


@functools.cache
def _sides() -> tuple[int, int]:
    (left,), (right,) = (default_tokenizer().encode(word) for word in ("left", "right"))
    return left, right
