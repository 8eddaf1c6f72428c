"""What is done to a model block by block: recomputation, compilation, learning rates."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from diptych.errors import SettingsError
from diptych.models.bag_of_words import BagOfWords
from diptych.models.modified_resnet import ModifiedResNet
from diptych.models.text_transformer import TextTransformer
from diptych.models.transformer import Transformer
from diptych.models.vision_transformer import VisionTransformer

_TOWERS = (VisionTransformer, ModifiedResNet, TextTransformer, BagOfWords)
Tower = VisionTransformer | ModifiedResNet | TextTransformer | BagOfWords

# Graphs that the code of a block may be compiled to: two towers, with and without gradients, every token or one,
# training or evaluation, a static and a dynamic shape each. PyTorch's own limit of 8 is for one function.
_GRAPHS = 64


def towers(model: nn.Module) -> Iterator[tuple[str, Tower]]:
    """Yield the towers inside `model`, each with the beginning of its parameters' names ("visual.", or "")."""
    for name, module in model.named_modules():
        if isinstance(module, _TOWERS):
            yield f"{name}." if name else "", module


def set_recompute(model: nn.Module, on: bool) -> None:
    """Let the backward pass compute the inside of every block again, or not; gradients are the same.

    A bag of words has no blocks, and nothing to gain.
    """
    for module in model.modules():
        if isinstance(module, Transformer | ModifiedResNet):
            module.recompute = on


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """Compile each block in place when it is first run; equal blocks share one graph.

    Names of parameters, hooks and the kinds of call stay what they are. Rounding changes: features by about 1e-6 in
    float32. backend: of torch.compile. Raises SettingsError where inductor has no compiler to call.
    """
    if backend == "inductor":
        _check_compiler({parameter.device.type for parameter in model.parameters()})
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _GRAPHS)
    for _, tower in towers(model):
        for block in tower.blocks:
            block.compile(fullgraph=True, backend=backend)


def distances_from_top(model: nn.Module) -> dict[str, int]:
    """Parameter name -> how many blocks' outputs lie between it and the top of its tower.

    With L blocks: 0 for the projection and the last norm, 1 for the last block, L for the first, L + 1 for the
    embeddings or the stem. What stands in no tower, the logit scale first of all, has 0.
    """
    distances = {name: 0 for name, _ in model.named_parameters()}
    for prefix, tower in towers(model):
        names = {id(value): prefix + name for name, value in tower.named_parameters()}
        depth = len(tower.blocks)
        for name in names.values():
            top = name.removeprefix(prefix).partition(".")[0] in tower.above_blocks
            distances[name] = 0 if top else depth + 1
        for number, block in enumerate(tower.blocks):
            for value in block.parameters():
                distances[names[id(value)]] = depth - number
    return distances


def _check_compiler(devices: set[str]) -> None:
    """Look for what inductor would only miss in the middle of the first step."""
    remedy = "or leave [training] compile off"
    # The names that inductor (C++) and Triton (C) look for themselves.
    kind, wanted = "CXX", ["clang++" if sys.platform == "darwin" else "g++"]
    if devices == {"cuda"}:
        kind, wanted = "CC", ["gcc", "clang"]
        if find_spec("triton") is None:
            raise SettingsError(f"compile: the package 'triton' is not installed; install it, {remedy}")
    named = os.environ.get(kind)
    if not any(shutil.which(name) for name in ([named] if named else wanted)):
        raise SettingsError(
            f"compile: no compiler {named or ' or '.join(wanted)!r} is on the PATH; install one, or name yours in "
            f"the environment variable {kind}, {remedy}"
        )
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if not headers.exists():
        raise SettingsError(
            f"compile: {headers} is missing; install Python's headers (python3-dev on Debian), {remedy}"
        )
