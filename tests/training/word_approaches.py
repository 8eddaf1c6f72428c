"""What the approaches that predict words, and SHRe, should give: for `approaches.py`, by loops and autograd alone."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.data.batch import Batch
from diptych.data.images.transforms import Preprocess
from diptych.models.architectures import (
    Architecture,
    Captioner,
    SharedEncoder,
    TextTransformer,
    VisionTransformer,
    WordPredictor,
)
from diptych.models.heads.captioner import Captioner as CaptioningHead
from diptych.models.heads.word_masking import mask_words
from diptych.models.heads.word_predictor import WordPredictor as WordHead
from diptych.models.image_model import ImageModel
from diptych.models.shared_encoder import SharedEncoder as SharedLayers
from diptych.models.text_transformer import TextTransformer as TextTower
from diptych.models.vision_transformer import VisionTransformer as ImageTower

VIT = VisionTransformer(resolution=32, patch=16, width=16, layers=2, heads=2)
TEXT = TextTransformer(width=16, layers=2, heads=2, context_length=12, embedding_width=4)
KNOWN = tuple(range(0, 49_000, 7))  # six of seven words are strangers
FRAMES, BANDS = 6, 5
MARGIN, RANKING = 0.3, 0.7

Loss = Callable[[ImageModel, Batch, Path], Tensor]


def normalised(batch: Batch) -> Tensor:
    mean, std = (torch.tensor(value)[:, None, None] for value in (Preprocess(32).mean, Preprocess(32).std))
    return ((batch.canvas.float() / 255 - mean) / std).double()


def used_words(tokens: Tensor) -> list[Tensor]:
    return [text[: int(text.argmax()) + 1].long() for text in tokens]


def surprise(model: ImageModel, tokens: Tensor) -> Tensor:
    """The mean over texts of the mean -log p of each next word, one text at a time."""
    text = model.text
    assert isinstance(text, TextTower)
    assert text.embedding_projection is not None
    found = []
    for used in used_words(tokens):
        states = text.tokens(used[None])[0, :-1] @ text.embedding_projection.weight
        found.append(F.cross_entropy(states @ text.token_embedding.weight.T, used[1:]))
    return torch.stack(found).mean()


def language_loss(model: ImageModel, batch: Batch, _: Path) -> Tensor:
    return surprise(model, batch.tokens)


def clip_language_loss(model: ImageModel, batch: Batch, _: Path) -> Tensor:
    image = F.normalize(model.visual(normalised(batch)), dim=1)
    text = F.normalize(model.text(batch.tokens), dim=1)
    logits = model.logit_scale.exp() * image @ text.T
    mine = torch.arange(len(logits))
    contrast = (F.cross_entropy(logits, mine) + F.cross_entropy(logits.T, mine)) / 2
    return contrast + 0.25 * surprise(model, batch.tokens)


def masked_loss(model: ImageModel, batch: Batch, _: Path) -> Tensor:
    """Over the hidden words of all texts, each text on its own."""
    captioner = model.text
    assert isinstance(captioner, CaptioningHead)
    assert isinstance(model.visual, ImageTower)
    rows = captioner.words.rows_of(batch.tokens)
    read, hidden, chosen = mask_words(batch.seeds, rows, 0.15, captioner.words.rows)
    cells = model.visual.tokens(normalised(batch)) @ model.visual.proj
    found = []
    for row in range(len(rows)):
        end = int(rows[row].argmax()) + 1
        states = captioner(
            cells[row : row + 1], read[row : row + 1, :end], "around", hidden[row : row + 1, :end]
        )[0]
        logits = states @ captioner.token_embedding.weight.T + captioner.output_bias
        found += [
            F.cross_entropy(logits[place], rows[row, place]) for place in range(end) if chosen[row, place]
        ]
    return torch.stack(found).mean()


def detection_loss(model: ImageModel, batch: Batch, _: Path) -> Tensor:
    head = model.text
    assert isinstance(head, WordHead)
    logits = model.visual(normalised(batch)) @ head.table.T + head.bias
    target = torch.zeros_like(logits)
    for row, used in enumerate(used_words(head.words.rows_of(batch.tokens))):
        target[row, used[1:-1]] = 1
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(dim=1).mean()


def shre_loss(model: ImageModel, batch: Batch, _: Path) -> Tensor:
    """The ranking of images with words, and with sounds, in both hidden layers, pair by pair."""
    encoder = model.text
    assert isinstance(encoder, SharedLayers)
    assert encoder.sounds is not None
    image = encoder.layers(model.visual(normalised(batch)))
    words = encoder.layers(encoder.words(batch.tokens))
    sounds = encoder.layers(encoder.sounds(batch.sounds))
    total = torch.zeros((), dtype=torch.float64)
    for other, parity in ((words, 0), (sounds, 1)):
        rows = [row for row in range(len(batch.rows)) if row % 2 == parity]
        for x, y in zip(image[:-1], other[:-1], strict=True):
            x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)  # noqa: PLW2901
            for i in rows:
                for j in rows:
                    if i != j:
                        total = total + (MARGIN - x[i] @ y[i] + x[i] @ y[j]).clamp(min=0)
                        total = total + (MARGIN - x[i] @ y[i] + y[i] @ x[j]).clamp(min=0)
    return RANKING * total / len(batch.rows)


def architecture(text: TextTransformer | Captioner | WordPredictor | SharedEncoder) -> Architecture:
    return Architecture(embed_dim=8, image=VIT, text=text)


WORD_APPROACHES: dict[str, tuple[Architecture, tuple[str, ...], Loss]] = {
    "language": (architecture(TEXT), ("language",), language_loss),
    "clip-language": (
        architecture(TEXT),
        ("clip-language", "objective.language_weight=0.25"),
        clip_language_loss,
    ),
    "captioning-masked": (
        architecture(Captioner(decoder_layers=1, reads="masked", heads=2, context_length=12, known=KNOWN)),
        ("captioning",),
        masked_loss,
    ),
    "word-detection": (
        architecture(WordPredictor(word_loss="sigmoid", context_length=12, known=KNOWN)),
        ("word-prediction",),
        detection_loss,
    ),
    "shre": (
        architecture(
            SharedEncoder(
                hidden=(10, 8),
                classes=3,
                width=6,
                sound_bands=BANDS,
                sound_frames=FRAMES,
                context_length=12,
            )
        ),
        ("shre", f"objective.margin={MARGIN}", f"objective.ranking_weight={RANKING}"),
        shre_loss,
    ),
}
