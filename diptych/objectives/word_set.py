"""Predict the words of a caption without their order: the bag-of-words baseline of CLIP's Figure 2.

Radford et al. (2021), section 2.3, do not give its loss. `softmax` is our choice, after Joulin et al. (2016), section
3.2, and the token classification of VirTex; `sigmoid` classifies every word of the vocabulary independently.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.vocabulary_softmax import log_normalisers


def word_prediction(features: Tensor, table: Tensor, bias: Tensor, words: Tensor) -> tuple[Tensor, int]:
    """Return the cross-entropy, in nats, of a uniform distribution over a caption's words with the softmax.

    The softmax is over the whole vocabulary. features: (local, dim), of images. table: (vocabulary, dim) and bias:
    (vocabulary,), the output layer. words: (local, most) distinct ids of each caption, filled up with -1.
    Returns the sum over the rows of -1/|S| sum over S of log p(word), and the number of rows that have a word.
    """
    has = words >= 0
    row, place = has.nonzero(as_tuple=True)
    ids, share = words[row, place].long(), 1 / has.sum(dim=1)[row].to(features.dtype)
    chosen = (features[row] * table[ids]).sum(dim=1) + bias[ids]
    some = has.any(dim=1)
    total = log_normalisers(features[some], table, bias).sum() - (chosen * share).sum()
    return total, int(some.sum())


def word_detection(features: Tensor, table: Tensor, bias: Tensor, words: Tensor) -> tuple[Tensor, int]:
    """Return the binary cross-entropy, in nats, of every word of the vocabulary: whether it is in the caption.

    Arguments as in `word_prediction`; the whole matrix of logits is in memory. Returns the sum over the rows that have
    a word and over all words of the vocabulary, and the number of these rows.
    """
    has = words >= 0
    row, place = has.nonzero(as_tuple=True)
    ids = words[row, place].long()
    chosen = (features[row] * table[ids]).sum(dim=1) + bias[ids]
    some = has.any(dim=1)
    # -log sigmoid(z) of the words in the caption is softplus(z) - z.
    return F.softplus(torch.addmm(bias, features[some], table.T)).sum() - chosen.sum(), int(some.sum())
