"""Sizes of the nine published models."""

import pytest
import torch
from verify_weights import PARAMETERS

from diptych.models.architectures import PUBLISHED
from diptych.weights.assembly import lay_out
from diptych.weights.half_precision import to_half

# Tensors in a state dict, and bytes with matrices in float16, counted in OpenAI's code; the latter agree with the
# sizes of the published downloads.
TENSORS_AND_BYTES = {
    "RN50": (489, 255_262_844),
    "RN101": (795, 290_938_388),
    "RN50x4": (669, 421_085_084),
    "RN50x16": (921, 660_099_612),
    "RN50x64": (1353, 1_352_043_452),
    "ViT-B/32": (302, 353_436_676),
    "ViT-B/16": (302, 350_349_316),
    "ViT-L/14": (446, 932_051_972),
    "ViT-L/14@336px": (446, 933_362_692),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_architecture_has_the_published_number_of_parameters(name: str) -> None:
    model = lay_out(PUBLISHED[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_half_precision_has_the_published_number_of_bytes(name: str) -> None:
    state = to_half(lay_out(PUBLISHED[name]), torch.float16).state_dict()
    assert (len(state), sum(value.nbytes for value in state.values())) == TENSORS_AND_BYTES[name]
