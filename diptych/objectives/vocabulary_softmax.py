"""Compute the softmax over a vocabulary a few rows at a time, and recompute it for the gradient, to save memory."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# The most logits in memory at once: 16 million of float32 take 64 MB.
_LOGITS = 1 << 24


def log_normalisers(features: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """Return log sum over the words w of exp(features . table_w + bias_w): (rows,).

    features: (rows, dim). table: (words, dim). bias: (words,).
    """
    if not len(features):
        return features.sum(dim=1)
    rows = max(1, _LOGITS // len(table))

    def normaliser(part: Tensor) -> Tensor:
        return (part @ table.T + bias).logsumexp(dim=1)

    if len(features) <= rows:
        return normaliser(features)
    parts = [
        checkpoint(normaliser, part, use_reentrant=False, preserve_rng_state=False)
        for part in torch.split(features, rows)
    ]
    return torch.cat(parts)


def log_likelihoods(features: Tensor, table: Tensor, bias: Tensor, words: Tensor) -> Tensor:
    """Return log p(word | features) of one word per row, (rows,), at most 0. words: (rows,) ids."""
    chosen = (features * table[words]).sum(dim=1) + bias[words]
    return chosen - log_normalisers(features, table, bias)
