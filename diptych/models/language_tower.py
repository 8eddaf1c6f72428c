"""CLIP's text tower as a language model too: what its causal mask was kept for (Radford et al. 2021, section 2.4)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models.text_transformer import TextTransformer

# states (rows, dim), table (words, dim), bias (words,), words (rows,) to the log p of each: (rows,)
LogLikelihoods = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class LanguageTower(nn.Module):
    """Each text's embedding, and how surprised the tower was by its words.

    The next word is predicted from what the last norm gives of each token, by the table of the words' embeddings: the
    tower has no parameter more than without. log_likelihoods: of the softmax over the vocabulary. Raises SettingsError
    for a tower that is no causal one.
    """

    def __init__(self, text: TextTransformer, log_likelihoods: LogLikelihoods) -> None:
        super().__init__()
        if not text.cuts_texts:
            raise SettingsError(
                "a text tower whose tokens see those after them, or whose feature is not the end token's, is no "
                "language model; train it with another objective"
            )
        self.text = text
        self._log_likelihoods = log_likelihoods

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, up to context_length) ids; returns (batch, embed_dim + 1).

        The last column is -log p of a text's tokens after the first, its end token included, as the mean over them, in
        nats. The others are the embedding, not of unit length.
        """
        text = self.text
        end = text.pooled_positions(tokens)
        used = tokens[:, : int(end.max()) + 1]
        states = text.tokens(used)
        row = torch.arange(len(used), device=used.device)
        embedding = text.project(states[row, end])
        position = torch.arange(used.shape[1] - 1, device=used.device)
        counted = position < end[:, None]
        surprise = self._surprise(states[:, :-1][counted], text.words.rows_of(used[:, 1:])[counted].long())
        total = torch.zeros(counted.shape, dtype=surprise.dtype, device=used.device)
        total = total.masked_scatter(counted, surprise).sum(dim=1)
        return torch.cat([embedding.to(surprise.dtype), (total / end.clamp(min=1))[:, None]], dim=1)

    def _surprise(self, states: Tensor, words: Tensor) -> Tensor:
        """-log p of the word after each state: (rows,), float32 at least."""
        text = self.text
        table = text.token_embedding.weight
        # Half precision would round a log p of 10 to a thirtieth.
        with torch.autocast(states.device.type, enabled=False):
            hidden = states.to(table.dtype)
            if text.embedding_projection is not None:
                hidden = hidden @ text.embedding_projection.weight.to(table.dtype)
            return -self._log_likelihoods(hidden, table, table.new_zeros(len(table)), words)
