"""Compare an exported model with its source on images and captions of the bundled sample."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import open_source
from diptych.errors import CheckpointError
from diptych.models.clip import CLIP
from diptych.tokenizer import tokenize

_COUNT = 32
# Neither a divisor of the count nor the size that an exporter records, so that batches of other sizes run as well.
_BATCH = 7
# The largest difference of a number of a feature of unit length. float32 leaves rounding, float16 three digits.
_BOUNDS = {"float32": 1e-4, "float16": 1e-2}


@dataclass(frozen=True)
class SampleInputs:
    """Images (n, 3, resolution, resolution) and the tokens of their captions (n, context_length)."""

    pixels: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class ExportCheck:
    """The answers of an exported model beside those of its source.

    largest_difference: of a number of an image's or a text's feature of unit length.
    same_top1: how many of the images have the same nearest caption in both.
    """

    images: int
    largest_difference: float
    same_top1: int


def sample_inputs(preprocess: Preprocess, context_length: int) -> SampleInputs:
    """Return 32 images of `sample:test` and their captions, as a model reads them."""
    source = open_source("sample:test")
    rows = [source[number] for number in range(0, len(source), len(source) // _COUNT)][:_COUNT]
    pixels = torch.stack([preprocess(row.image) for row in rows])
    tokens = tokenize([row.captions[0] for row in rows], context_length=context_length, truncate=True)
    return SampleInputs(pixels, tokens)


def check_export(source: CLIP, exported: Any, inputs: SampleInputs, precision: str) -> ExportCheck:
    """Run both models on the same inputs.

    exported: has `encode_image` and `encode_text`, on the CPU.

    Raises:
        CheckpointError: the features differ by more than the precision explains.
    """
    expected_images, expected_texts = _features(source, inputs)
    images, texts = _features(exported, inputs)
    difference = max(
        (images - expected_images).abs().max().item(), (texts - expected_texts).abs().max().item()
    )
    if not difference <= _BOUNDS[precision]:  # also when it is not a number
        raise CheckpointError(
            f"the exported model differs from its source by {difference:.1e} in a feature of unit length; expected at "
            f"most {_BOUNDS[precision]:.0e} in {precision}. Nothing was written. This is a fault of Diptych: please "
            "report it with the architecture of the model"
        )
    same = (images @ texts.T).argmax(dim=1) == (expected_images @ expected_texts.T).argmax(dim=1)
    return ExportCheck(len(images), difference, int(same.sum()))


@torch.no_grad()
def _features(model: Any, inputs: SampleInputs) -> tuple[Tensor, Tensor]:
    images = [model.encode_image(part) for part in inputs.pixels.split(_BATCH)]
    texts = [model.encode_text(part) for part in inputs.tokens.split(_BATCH)]
    return F.normalize(torch.cat(images).float(), dim=-1), F.normalize(torch.cat(texts).float(), dim=-1)
