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
    """Return the sum of -log p(next token | the tokens before it, the image), in nats, and the number of tokens.

    states: (local, length, dim), the decoder's output for each token. table: (words, dim) and bias: (words,), the
    output layer. tokens: (local, length) ids, in the order in which they were read. ends: (local,), the position of
    the last token of each text; the rest is padding, whatever its ids.
    The sum covers all tokens but the first of each text. The two directions of VirTex are two sums over one number:
    they are added, not averaged.
    """
    place = torch.arange(tokens.shape[1], device=tokens.device)
    row, before = (place < ends[:, None]).nonzero(as_tuple=True)
    found = log_likelihoods(states[row, before], table, bias, tokens[row, before + 1].long())
    return -found.sum(), len(row)


def masked_words(
    states: Tensor, table: Tensor, bias: Tensor, tokens: Tensor, chosen: Tensor
) -> tuple[Tensor, int]:
    """Return the sum of -log p(token | the text around it, the image) over the chosen positions, and their number.

    The unit is nats (Devlin et al. 2018, section 3.1). states, table, bias, tokens: as in `captioning`, with the tokens
    before any was masked. chosen: (local, length), bool.
    """
    found = log_likelihoods(states[chosen], table, bias, tokens[chosen].long())
    return -found.sum(), len(found)
