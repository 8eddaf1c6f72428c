"""Exchange left and right in the captions of mirrored images (VirTex, section 3.3)."""

import functools

import torch
from torch import Tensor

from diptych.tokenizer import default_tokenizer


def exchange_sides(tokens: Tensor) -> Tensor:
    """Exchange the words "left" and "right" in ids; twice is the identity.

    Only ids of whole words are exchanged, so "leftover" and "bright" do not change.
    """
    left, right = _sides()
    return torch.where(tokens == left, right, torch.where(tokens == right, left, tokens))


@functools.cache
def _sides() -> tuple[int, int]:
    (left,), (right,) = (default_tokenizer().encode(word) for word in ("left", "right"))
    return left, right
