"""How likely a text is to a model that predicts texts from images (the baselines of CLIP's Figure 2, and VirTex).

The paper does not say how it asked such models for a class. Here the class is the one whose text is the likeliest: by
the mean over its tokens, or words, which does not favour short names; and by the whole text.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diptych import tokenizer
from diptych.embed.encode import Encode, Vectors
from diptych.errors import SettingsError
from diptych.models.clip import CLIP
from diptych.models.heads.captioner import Captioner, CellTower
from diptych.models.heads.word_predictor import WordPredictor, distinct_words


def predicts_texts(model: CLIP) -> bool:
    """Whether a model gives probabilities of texts, and no embeddings of them."""
    return isinstance(model.text, Captioner | WordPredictor)


def class_likelihoods(model: CLIP, prompts: Sequence[Sequence[str]]) -> Encode:
    """From preprocessed images to log p of each class, (n, 2 * classes): by the mean token, then by the whole text.

    prompts: the texts of each class; their probabilities are averaged.
    """
    tokens = tokenizer.tokenize(
        [text for ways in prompts for text in ways], context_length=model.context_length, truncate=True
    )
    counts = [len(ways) for ways in prompts]

    def encode(pixels: Sequence[Tensor]) -> Vectors:
        device = model.logit_scale.device
        with torch.inference_mode():
            images = torch.stack(list(pixels)).to(device, model.dtype)
            by_token, whole = likelihoods(model, images, tokens.to(device))
            both = [
                (part.logsumexp(dim=1) - np.log(part.shape[1]))
                for scores in (by_token, whole)
                for part in torch.split(scores.float(), counts, dim=1)
            ]
            return torch.stack(both, dim=1).cpu().numpy()

    return encode


def likelihoods(model: CLIP, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """log p of each text for each image: its mean over the text's tokens, and its sum; each (images, texts).

    pixels: (images, 3, n, n). tokens: (texts, context) ids. For a model that predicts the set of words, the tokens of a
    text are its distinct words. Raises SettingsError for a model that embeds texts.
    """
    text = model.text
    if isinstance(text, WordPredictor):
        mean = text.scores(model.encode_image(pixels), tokens)
        words = (distinct_words(text.words.rows_of(tokens)) >= 0).sum(dim=1)
        return mean, mean * words.clamp(min=1)
    if not isinstance(text, Captioner):
        raise SettingsError(
            f"the model's text side is a {type(text).__name__}, which gives no probability of a text; "
            "compare embeddings instead"
        )
    whole = text.scores(CellTower(model.visual)(pixels), tokens)
    return whole / tokens.argmax(dim=1), whole


def seen_of_images(model: CLIP) -> Encode:
    """What the text side sees of preprocessed images, one row an image, for `pair_likelihoods`."""

    def encode(pixels: Sequence[Tensor]) -> Vectors:
        with torch.inference_mode():
            images = torch.stack(list(pixels)).to(model.logit_scale.device, model.dtype)
            tower = CellTower(model.visual) if isinstance(model.text, Captioner) else model.visual
            seen: Vectors = tower(images).flatten(1).float().cpu().numpy()
            return seen

    return encode


def pair_likelihoods(model: CLIP, seen: Vectors, texts: Sequence[str], *, batch_size: int = 256) -> Vectors:
    """The mean log p over the tokens of each image's own text: (n,).

    seen: (n, width), of `seen_of_images`. texts: n of them.
    """
    text, device = model.text, model.logit_scale.device
    assert isinstance(text, Captioner | WordPredictor)
    tokens = tokenizer.tokenize(texts, context_length=model.context_length, truncate=True).to(device)
    parts = []
    with torch.inference_mode():
        for rows in torch.split(torch.arange(len(texts)), batch_size):
            features = torch.from_numpy(seen[rows.numpy()]).to(device)
            if isinstance(text, WordPredictor):
                found = text.scores(features, tokens[rows]).diagonal()
            else:
                cells = features.view(len(rows), -1, text.token_embedding.embedding_dim)
                found = text.log_likelihood(cells, tokens[rows]) / tokens[rows].argmax(dim=1)
            parts.append(found.float().cpu())
    together: Vectors = torch.cat(parts).numpy()
    return together
