"""Turn text into token ids, exactly as CLIP's published models read them."""

import functools
from collections.abc import Sequence

import torch

from diptych.tokenizer.bpe import Tokenizer as Tokenizer


@functools.cache
def default_tokenizer() -> Tokenizer:
    """Return the tokenizer of all published CLIP models, built at the first call."""
    return Tokenizer()


def tokenize(texts: str | Sequence[str], context_length: int = 77, truncate: bool = False) -> torch.Tensor:
    """Turn texts into token ids, exactly as CLIP's published models read them.

    Args:
        texts: one text, or several.
        context_length: ids of a row, start and end token included; 77 in the published models.
        truncate: cut texts that are too long, and end them with the end token; they are an error otherwise.

    Returns:
        Ids (n, context_length), int32, 0 after the end token; (1, context_length) of a single text.

    Raises:
        TextError: a text is too long and `truncate` is off, or is not valid Unicode.
        SettingsError: `context_length` leaves no room for both tokens.

    Example:
        >>> import diptych
        >>> diptych.tokenize("a red bicycle")[0, :6].tolist()
        [49406, 320, 736, 11652, 49407, 0]
    """
    return default_tokenizer()(texts, context_length=context_length, truncate=truncate)
