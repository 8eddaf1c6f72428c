"""Text to token ids, exactly as CLIP's published models read them."""

import functools
from collections.abc import Sequence

import torch

from diptych.tokenizer.bpe import Tokenizer as Tokenizer


@functools.cache
def default_tokenizer() -> Tokenizer:
    """The tokenizer of all published CLIP models, built when it is first asked for."""
    return Tokenizer()


def tokenize(texts: str | Sequence[str], context_length: int = 77, truncate: bool = False) -> torch.Tensor:
    """Token ids of one or several texts: (n, context_length), int32; see `Tokenizer.__call__`."""
    return default_tokenizer()(texts, context_length=context_length, truncate=truncate)
