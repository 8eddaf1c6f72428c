"""How likely texts are to a model that predicts them from images (the baselines of CLIP's Figure 2, and VirTex)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diptych import tokenizer
from diptych.embed.encode import Encode, Vectors
from diptych.models.capabilities import PredictsTexts


def class_likelihoods(model: PredictsTexts, prompts: Sequence[Sequence[str]]) -> Encode:
    """Return what maps images to log p of each class, (n, 2 * classes): by the mean token, then by the whole text.

    prompts: the texts of each class; their probabilities are averaged.
    """
    tokens = tokenizer.tokenize(
        [text for ways in prompts for text in ways], context_length=model.context_length, truncate=True
    )
    counts = [len(ways) for ways in prompts]

    def encode(pixels: Sequence[Tensor]) -> Vectors:
        device = model.device
        with torch.inference_mode():
            images = torch.stack(list(pixels)).to(device)
            by_token, whole = model.likelihoods(model.see(images), tokens.to(device))
            both = [
                (part.logsumexp(dim=1) - np.log(part.shape[1]))
                for scores in (by_token, whole)
                for part in torch.split(scores.float(), counts, dim=1)
            ]
            return torch.stack(both, dim=1).cpu().numpy()

    return encode


def pair_likelihoods(
    model: PredictsTexts, seen: Vectors, texts: Sequence[str], *, batch_size: int = 256
) -> Vectors:
    """Return the mean log p over the tokens of each image's own text: (n,).

    seen: (n, width), of `model.see`. texts: n of them.
    """
    tokens = tokenizer.tokenize(texts, context_length=model.context_length, truncate=True).to(model.device)
    parts = []
    with torch.inference_mode():
        for rows in torch.split(torch.arange(len(texts)), batch_size):
            features = torch.from_numpy(seen[rows.numpy()]).to(model.device)
            parts.append(model.pair_likelihoods(features, tokens[rows]).float().cpu())
    together: Vectors = torch.cat(parts).numpy()
    return together
