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
from diptych.models.clip import CLIP
from diptych.models.image_model import ImageModel
from diptych.models.modified_resnet import ModifiedResNet as ResNetTower
from diptych.models.text_transformer import TextTransformer as TextTower
from diptych.models.vision_transformer import VisionTransformer as VisionTower

VOCABULARY = 60  # the last id is the end token, as in the published vocabulary
CONTEXT = 12

IMAGE_TOWERS: dict[str, VisionTransformer | ModifiedResNet] = {
    "vit": VisionTransformer(resolution=32, patch=8, width=128, layers=3),
    "resnet": ModifiedResNet(resolution=64, layers=(1, 2, 1, 1), width=8),
    "resnet-stem-stride-2": ModifiedResNet(resolution=64, layers=(1, 1, 2, 1), width=8, stem_stride=2),
}
TEXT_TOWERS: dict[str, TextTransformer | BagOfWords] = {
    "transformer": TextTransformer(width=128, layers=3, context_length=CONTEXT, vocab_size=VOCABULARY),
    "sinusoidal": TextTransformer(
        width=128, layers=2, context_length=CONTEXT, vocab_size=VOCABULARY, positions="sinusoidal"
    ),
    "narrow-embedding": TextTransformer(
        width=128, layers=2, heads=4, context_length=CONTEXT, vocab_size=VOCABULARY, embedding_width=32
    ),
    "bag-of-words": BagOfWords(width=128, context_length=CONTEXT, vocab_size=VOCABULARY),
}


def small_model(image: str = "vit", text: str = "transformer", dtype: torch.dtype = torch.float64) -> CLIP:
    """A model with the paper's initialisation, but no weight of zero, in evaluation mode."""
    torch.manual_seed(0)
    architecture = Architecture(embed_dim=24, image=IMAGE_TOWERS[image], text=TEXT_TOWERS[text])
    model = build_model(architecture).eval()
    assert isinstance(model, CLIP)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and name != "logit_scale" and (value == value.flatten()[0]).all():
            torch.nn.init.uniform_(value, 0.5, 1.5)
    return model.to(dtype)


def vision_transformer_of(model: ImageModel) -> VisionTower:
    assert isinstance(model.visual, VisionTower)
    return model.visual


def resnet_of(model: ImageModel) -> ResNetTower:
    assert isinstance(model.visual, ResNetTower)
    return model.visual


def text_transformer_of(model: ImageModel) -> TextTower:
    assert isinstance(model.text, TextTower)
    return model.text


def random_texts(lengths: list[int], words: int = VOCABULARY - 2) -> torch.Tensor:
    """(len(lengths), CONTEXT) ids: start token, `length - 2` of the first `words` words, end token, padding."""
    tokens = torch.zeros(len(lengths), CONTEXT, dtype=torch.int64)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = torch.randint(0, words, (length,))
        row[0] = VOCABULARY - 2
        row[length - 1] = VOCABULARY - 1
    return tokens
