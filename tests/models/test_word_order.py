"""Whether a text tower sees the order of the words, on real words."""

import torch

from diptych.models.architectures import Architecture, BagOfWords, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.tokenizer import tokenize

TEXTS = ["dog bites man", "man bites dog", "a red circle, a blue square", "a blue circle, a red square"]


def model_of(text: BagOfWords | TextTransformer) -> ImageModel:
    torch.manual_seed(0)
    image = VisionTransformer(resolution=16, patch=16, width=8, layers=1, heads=1)
    return build_model(Architecture(embed_dim=16, image=image, text=text)).double().eval()


def test_a_bag_of_words_cannot_tell_who_bites_whom_nor_what_is_red() -> None:
    found = model_of(BagOfWords(width=32, context_length=16)).encode_text(tokenize(TEXTS, context_length=16))
    for one, other in ((0, 1), (2, 3)):
        torch.testing.assert_close(found[one], found[other], rtol=0, atol=1e-6)
    assert (found[0] - found[2]).abs().max() > 0.1


def test_a_transformer_can() -> None:
    model = model_of(TextTransformer(width=32, layers=1, heads=2, context_length=16))
    found = model.encode_text(tokenize(TEXTS, context_length=16))
    for one, other in ((0, 1), (2, 3)):
        assert (found[one] - found[other]).abs().max() > 1e-3
