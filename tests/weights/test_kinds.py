"""A checkpoint of every kind of model comes back as it was saved."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diptych.config import plain
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError
from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    Captioner,
    LabelHead,
    ProjectionHead,
    SharedEncoder,
    TextSide,
    TextTransformer,
    VisionTransformer,
    WordPredictor,
)
from diptych.models.building import build_model
from diptych.pretrained import load
from diptych.weights.checkpoint import save_checkpoint

KNOWN = (0, 5, 320)  # id 0 is a word like any other
TEXT = TextTransformer(width=8, layers=1, heads=2, context_length=8, embedding_width=4)
CAPTIONER = Captioner(decoder_layers=1, heads=2, context_length=8, known=KNOWN)
SHARED = SharedEncoder(hidden=(6, 8), classes=3, width=4, context_length=8, vocab_size=60)
PROJECTION = ProjectionHead(head_layers=2, head_dim=4)
LABELS = LabelHead(classes=("a", "b"), kept_layers=0)
SIDES: dict[str, TextSide] = {
    "transformer": TEXT,
    "transformer-known": TextTransformer(width=8, layers=1, heads=2, context_length=8, known=KNOWN),
    "bag-of-words": BagOfWords(width=4, context_length=8),
    "captioner": CAPTIONER,
    "masked": replace(CAPTIONER, reads="masked"),
    "word-predictor": WordPredictor(word_loss="sigmoid", context_length=8, known=KNOWN),
    "shared": SHARED,
    "shared-sounds": SharedEncoder(
        hidden=(8,), classes=3, width=4, sound_bands=5, context_length=8, vocab_size=60
    ),
    "projection": PROJECTION,
    "labels": LABELS,
}
# The same with more layers than any file of theirs has.
DEEP: dict[str, TextSide] = {
    "captioner": replace(CAPTIONER, decoder_layers=100_000),
    "shared": replace(SHARED, convolutions=100_000),
    "projection": replace(PROJECTION, head_layers=100_000),
    "labels": replace(LABELS, kept_layers=100_000),
}


@pytest.mark.parametrize("side", list(SIDES))
@pytest.mark.parametrize("bias", [None, -10.0])
def test_a_checkpoint_of_every_text_side_loads_to_the_bit(
    side: str, bias: float | None, tmp_path: Path
) -> None:
    architecture = Architecture(
        embed_dim=8,
        image=VisionTransformer(resolution=16, patch=8, width=8, layers=1, heads=2),
        text=SIDES[side],
        logit_bias=bias,
    )
    torch.manual_seed(0)
    model = build_model(architecture).eval()
    save_checkpoint(tmp_path / "model", model, plain(Preprocess(16)))
    again, preprocess = load(str(tmp_path / "model"))
    assert again.architecture == architecture
    assert preprocess == Preprocess(16)
    found, expected = again.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("side", list(DEEP))
def test_a_small_file_cannot_ask_for_many_layers_of_any_kind(side: str, tmp_path: Path) -> None:
    image = VisionTransformer(resolution=16, patch=8, width=8, layers=1, heads=2)
    model = build_model(Architecture(embed_dim=8, image=image, text=SIDES[side]))
    model.architecture = replace(model.architecture, text=DEEP[side])
    save_checkpoint(tmp_path / "model", model, plain(Preprocess(16)))
    with pytest.raises(CheckpointError, match="layers, but the file"):
        load(str(tmp_path / "model"))
