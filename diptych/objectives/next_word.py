"""The captioning objectives of VirTex (Desai and Johnson 2021, section 3): predict a caption word by word.

The mean is over the tokens of the global batch, as in the paper's code, so that a long caption weighs more than a
short one.
"""

import torch
from torch import Tensor

from diptych.objectives.vocabulary_softmax import log_likelihoods


def captioning(
    states: Tensor, table: Tensor, bias: Tensor, tokens: Tensor, ends: Tensor
) -> tuple[Tensor, int]:
    """-log p(next token | the tokens before it, the image), in nats.

    states: (local, length, dim), what the decoder makes of each token. table: (words, dim) and bias: (words,), the
    output layer. tokens: (local, length) ids, in the order in which they were read. ends: (local,), the place of
    the last token of each text; what follows it is padding, whatever its id.
    Returns the sum over all tokens but the first of each text, and their number. The two directions of VirTex are
    two sums over one number: they add, and are not averaged.
    """
    place = torch.arange(tokens.shape[1], device=tokens.device)
    row, before = (place < ends[:, None]).nonzero(as_tuple=True)
    found = log_likelihoods(states[row, before], table, bias, tokens[row, before + 1].long())
    return -found.sum(), len(row)


def masked_words(
    states: Tensor, table: Tensor, bias: Tensor, tokens: Tensor, chosen: Tensor
) -> tuple[Tensor, int]:
    """-log p(token | the text around it, the image) of the chosen places (Devlin et al. 2018, section 3.1), in nats.

    states, table, bias, tokens: as in `captioning`, the tokens before any was hidden. chosen: (local, length), bool.
    Returns the sum over the chosen places, and their number.
    """
    found = log_likelihoods(states[chosen], table, bias, tokens[chosen].long())
    return -found.sum(), len(found)
