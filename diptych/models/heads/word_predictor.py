"""The head that predicts a caption's words from an image: the bag-of-words baseline of CLIP's Figure 2."""

import torch
from torch import Tensor, nn

from diptych.models import architectures
from diptych.models.heads.compact_vocabulary import CompactVocabulary


class WordPredictor(nn.Module):
    """One logit a word of the vocabulary: a linear map of the image tower's output."""

    def __init__(self, size: architectures.WordPredictor, embed_dim: int) -> None:
        super().__init__()
        self.word_loss = size.word_loss
        self.words = CompactVocabulary(size.known, size.vocab_size)
        self.table = nn.Parameter(torch.empty(self.words.rows, embed_dim))
        self.bias = nn.Parameter(torch.zeros(self.words.rows))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, embed_dim), of images; returns log p(word), (batch, rows of the vocabulary).

        Under `word_loss = "sigmoid"`, each word's own probability; else the words' probabilities sum to 1.
        """
        logits = features.to(self.table.dtype) @ self.table.T + self.bias
        if self.word_loss == "sigmoid":
            return nn.functional.logsigmoid(logits)
        return logits.log_softmax(dim=1)

    def scores(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Return the mean log p of each text's words for each image, (images, texts): zero-shot classification.

        tokens: (texts, up to context_length) ids. A text without words has the score of no evidence, -inf.
        """
        words = distinct_words(self.words.rows_of(tokens))
        has = words >= 0
        found = self(features)[:, words.clamp(min=0).long()]  # (images, texts, most)
        mean: Tensor = (found * has).sum(dim=2) / has.sum(dim=1).clamp(min=1)
        return mean.masked_fill(~has.any(dim=1), -torch.inf)


def distinct_words(tokens: Tensor) -> Tensor:
    """Return the distinct ids of each text, without start, end and padding: (batch, length) int64, -1 for none.

    tokens: (batch, length) ids; the end token is the largest. The padding's id, 0, is a word as well ("!"): what
    counts is the position before the end token.
    """
    position = torch.arange(tokens.shape[1], device=tokens.device)
    inside = (position > 0) & (position < tokens.argmax(dim=1, keepdim=True))
    ids = torch.where(inside, tokens.long(), -1).sort(dim=1, descending=True).values
    again = torch.zeros_like(inside)
    again[:, 1:] = ids[:, 1:] == ids[:, :-1]
    return ids.masked_fill(again, -1)
