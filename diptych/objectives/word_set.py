"""Predict which words a caption has, and not their order: the bag-of-words baseline of CLIP's Figure 2.

Radford et al. (2021), section 2.3, do not give its loss. `softmax` is ours to choose after Joulin et al. (2016),
section 3.2, and the token classification of VirTex; `sigmoid` judges every word of the vocabulary on its own.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.objectives.vocabulary_softmax import log_normalisers


def word_prediction(features: Tensor, table: Tensor, bias: Tensor, words: Tensor) -> tuple[Tensor, int]:
    """Cross-entropy of the softmax over the vocabulary with the uniform distribution over a caption's words, in nats.

    features: (local, dim), of images. table: (vocabulary, dim) and bias: (vocabulary,), the output layer. words:
    (local, most) distinct ids of each caption; -1 stands for none.
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
    """Binary cross-entropy of every word of the vocabulary: is it in the caption or not? In nats.

    Arguments as in `word_prediction`; the logits are whole. Returns the sum over the rows that have a word and over
    all words of the vocabulary, and the number of these rows.
    """
    has = words >= 0
    row, place = has.nonzero(as_tuple=True)
    ids = words[row, place].long()
    chosen = (features[row] * table[ids]).sum(dim=1) + bias[ids]
    some = has.any(dim=1)
    # -log sigmoid(z) of the words that are there is softplus(z) - z.
    return F.softplus(torch.addmm(bias, features[some], table.T)).sum() - chosen.sum(), int(some.sum())
