"""Small models of every kind of tower, and texts for them."""

import torch

from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    ModifiedResNet,
    TextTransformer,
    VisionTransformer,
)
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel

VOCABULARY = 60  # the last id is the end token, as in the published vocabulary
CONTEXT = 12

IMAGE_TOWERS = {
    "vit": VisionTransformer(resolution=32, patch=8, width=128, layers=3),
    "resnet": ModifiedResNet(resolution=64, layers=(1, 2, 1, 1), width=8),
    "resnet-stem-stride-2": ModifiedResNet(resolution=64, layers=(1, 1, 2, 1), width=8, stem_stride=2),
}
TEXT_TOWERS = {
    "transformer": TextTransformer(width=128, layers=3, context_length=CONTEXT, vocab_size=VOCABULARY),
    "sinusoidal": TextTransformer(
        width=128, layers=2, context_length=CONTEXT, vocab_size=VOCABULARY, positions="sinusoidal"
    ),
    "narrow-embedding": TextTransformer(
        width=128, layers=2, heads=4, context_length=CONTEXT, vocab_size=VOCABULARY, embedding_width=32
    ),
    "bag-of-words": BagOfWords(width=128, context_length=CONTEXT, vocab_size=VOCABULARY),
}


def small_model(
    image: str = "vit", text: str = "transformer", dtype: torch.dtype = torch.float64
) -> ImageModel:
    """A model with the paper's initialisation, but no weight of zero, in evaluation mode."""
    torch.manual_seed(0)
    architecture = Architecture(embed_dim=24, image=IMAGE_TOWERS[image], text=TEXT_TOWERS[text])
    model = build_model(architecture).eval()
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and name != "logit_scale" and (value == value.flatten()[0]).all():
            torch.nn.init.uniform_(value, 0.5, 1.5)
    return model.to(dtype)


def random_texts(lengths: list[int], words: int = VOCABULARY - 2) -> torch.Tensor:
    """(len(lengths), CONTEXT) ids: start token, `length - 2` of the first `words` words, end token, padding."""
    tokens = torch.zeros(len(lengths), CONTEXT, dtype=torch.int64)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = torch.randint(0, words, (length,))
        row[0] = VOCABULARY - 2
        row[length - 1] = VOCABULARY - 1
    return tokens
