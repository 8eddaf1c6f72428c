"""Write a CLIP as a TorchScript program, which PyTorch runs without this package."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from diptych.data.images.transforms import Preprocess
from diptych.exporting.open_clip_folder import open_clip_preprocessing
from diptych.exporting.sample_check import SampleInputs
from diptych.exporting.tokenizer_files import write_tokenizer
from diptych.models.clip import CLIP
from diptych.weights.folders import write_json

PROGRAM = "model.torchscript.pt"
PREPROCESSING = "preprocess_cfg.json"


def write_torchscript(folder: Path, model: CLIP, preprocess: Preprocess, inputs: SampleInputs) -> nn.Module:
    """Write the program with its preprocessing and tokenizer into an empty folder; return the program.

    It has the methods `encode_image`, `encode_text` and `forward` of OpenAI's archives, for batches of any size.
    Pixels are (batch, 3, resolution, resolution) float32, tokens (batch, context_length) int32 or int64.
    """
    pixels, tokens = inputs.pixels[:2], inputs.tokens[:2]
    with warnings.catch_warnings():
        # Tracing warns of the checks of shapes, which a program does not repeat; and of itself, as PyTorch's older way.
        warnings.simplefilter("ignore")
        program: nn.Module = torch.jit.trace_module(
            _Calls(model),
            {"forward": (pixels, tokens), "encode_image": pixels, "encode_text": tokens},
            check_trace=False,
        )
        program.save(str(folder / PROGRAM))  # type: ignore[operator]
    size = {"size": [preprocess.resolution] * 2, "mode": "RGB"}
    write_json(folder / PREPROCESSING, size | open_clip_preprocessing(preprocess))
    write_tokenizer(folder, model.context_length)
    return program


class _Calls(nn.Module):
    """The three calls of a CLIP, without the hooks of its class, which tracing would refuse."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.model(pixels, tokens)  # type: ignore[no-any-return]

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)
