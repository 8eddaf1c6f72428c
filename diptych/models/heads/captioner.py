"""The textual head of VirTex (Desai and Johnson 2021, section 3.2): it reads an image and writes its caption."""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.heads.compact_vocabulary import CompactVocabulary
from diptych.models.modified_resnet import ModifiedResNet
from diptych.models.transformer import check_heads
from diptych.models.vision_transformer import VisionTransformer

Direction = Literal["forward", "backward", "around"]


class Captioner(nn.Module):
    """Decoders over one image's cells; they share the embeddings of words and positions, and the output layer.

    The output layer is the embedding of the words again, with a bias of its own. The decoder's blocks normalise
    after each residual sum (Vaswani et al. 2017, Figure 1), as VirTex's do. There is no dropout.
    """

    def __init__(self, size: architectures.Captioner, embed_dim: int) -> None:
        super().__init__()
        heads = size.heads or max(1, embed_dim // 64)
        check_heads(embed_dim, heads)
        self.words = CompactVocabulary(size.known, size.vocab_size)
        self.reads = size.reads
        self.token_embedding = nn.Embedding(self.words.rows, embed_dim)
        self.positional_embedding = nn.Parameter(torch.empty(size.context_length, embed_dim))
        self.ln_embedding = nn.LayerNorm(embed_dim, eps=1e-8)
        directions: tuple[Direction, ...] = {
            "forward": ("forward",),
            "both": ("forward", "backward"),
            "masked": ("around",),
        }[size.reads]  # type: ignore[assignment]
        self.directions = directions
        self.decoders = nn.ModuleDict(
            {
                # "forward" is a method of every module, which a ModuleDict does not take for a key.
                f"read_{direction}": nn.ModuleList(
                    nn.TransformerDecoderLayer(
                        embed_dim, heads, 4 * embed_dim, dropout=0.0, activation="gelu", batch_first=True
                    )
                    for _ in range(size.decoder_layers)
                )
                for direction in directions
            }
        )
        self.mask_embedding = nn.Parameter(torch.empty(embed_dim)) if size.reads == "masked" else None
        self.output_bias = nn.Parameter(torch.zeros(self.words.rows))
        for name, value in self.named_parameters():
            if value.ndim > 1 or name == "mask_embedding":
                nn.init.normal_(value, std=0.02)
        if "backward" in directions:  # a copy, as in VirTex: the two start equal
            self.decoders["read_backward"].load_state_dict(self.decoders["read_forward"].state_dict())

    def forward(
        self, cells: Tensor, tokens: Tensor, direction: Direction, hidden: Tensor | None = None
    ) -> Tensor:
        """Return what the decoder of a direction makes of each token: (batch, length, embed_dim).

        cells: (batch, cells, embed_dim), of the images. tokens: (batch, length), rows of the vocabulary (see `words`)
        in the order in which they are read: for "backward" those of `reversed_texts`. "forward" and "backward" see no
        token after the one that they are at; "around" sees the whole text up to its end token. hidden: (batch, length),
        bool, tokens that the decoder sees as the mask and not as themselves.
        """
        embedded = self.token_embedding(tokens)
        if hidden is not None:
            if self.mask_embedding is None:
                raise SettingsError(
                    'reads: only a captioner with reads = "masked" has a mask to hide words with'
                )
            embedded = torch.where(hidden[..., None], self.mask_embedding.to(embedded.dtype), embedded)
        states: Tensor = self.ln_embedding(embedded + self.positional_embedding[: tokens.shape[1]])
        position = torch.arange(tokens.shape[1], device=tokens.device)
        later = padding = None
        if direction == "around":
            padding = position > tokens.argmax(dim=1, keepdim=True)
        else:
            later = position > position[:, None]
        cells = cells.to(states.dtype)  # an image tower in half precision gives them so
        for layer in cast(nn.ModuleList, self.decoders[f"read_{direction}"]):
            states = layer(states, cells, tgt_mask=later, tgt_key_padding_mask=padding)
        return states

    def next_word(self, cells: Tensor, prefixes: Tensor, direction: Direction = "forward") -> Tensor:
        """Return log p of every word after each prefix: (prefixes, vocabulary).

        cells: (cells, embed_dim), of one image. prefixes: (prefixes, length) rows of the vocabulary, without padding.
        """
        states = self(cells.expand(len(prefixes), *cells.shape), prefixes, direction)[:, -1]
        return self._logits(states).log_softmax(dim=1)

    def log_likelihood(self, cells: Tensor, tokens: Tensor) -> Tensor:
        """Return log p of the tokens of each text after the first, given its image, left to right: (batch,), in nats.

        cells: (batch, cells, embed_dim). tokens: (batch, length) ids. Divided by `tokens.argmax(dim=1)` it is the
        mean over the tokens. Raises SettingsError for a captioner that does not read from left to right.
        """
        if "forward" not in self.directions:
            raise SettingsError(
                f'reads = "{self.reads}": a captioner that fills in hidden words gives no probability of a whole text; '
                'use one with reads = "both" or "forward"'
            )
        tokens = self.words.rows_of(tokens).long()
        logits = self._logits(self(cells, tokens, "forward"))
        following = tokens[:, 1:, None]
        found = logits[:, :-1].log_softmax(dim=2).gather(2, following)[..., 0]
        position = torch.arange(tokens.shape[1] - 1, device=tokens.device)
        counted: Tensor = (found * (position < tokens.argmax(dim=1, keepdim=True))).sum(dim=1)
        return counted

    def _logits(self, states: Tensor) -> Tensor:
        return states @ self.token_embedding.weight.T + self.output_bias

    def scores(self, cells: Tensor, tokens: Tensor) -> Tensor:
        """Return `log_likelihood` of every text for every image, (images, texts): zero-shot classification.

        cells: (images, cells, embed_dim). tokens: (texts, length) ids.
        """
        used = (text[: int(text.argmax()) + 1] for text in tokens)
        return torch.stack([self.log_likelihood(cells, text.expand(len(cells), -1)) for text in used], dim=1)


class CellTower(nn.Module):
    """An image tower whose output is every cell of the image, and not one vector: what a captioner looks at."""

    def __init__(self, visual: VisionTransformer | ModifiedResNet) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (batch, 3, n, n), normalised; returns (batch, 1 + cells, embed_dim), the pooled one first.

        The tower's own projection takes each cell to the width of the decoders. A ResNet's cells are those that its
        attention pool mixes; VirTex takes them before, from a network that has no such pool.
        """
        tokens = self.visual.tokens(pixels)
        if isinstance(self.visual, ModifiedResNet):
            projected: Tensor = self.visual.attnpool.c_proj(tokens)
            return projected
        return tokens @ self.visual.proj


def reversed_texts(tokens: Tensor) -> Tensor:
    """Return each text from its end token to its start token, the padding left behind it: (batch, length).

    Twice is the identity. The end token's position now holds the start token.
    """
    position = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    end = tokens.argmax(dim=1, keepdim=True)
    return tokens.gather(1, torch.where(position <= end, end - position, position))
