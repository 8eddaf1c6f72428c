"""Which device and which precision `auto` means on this machine."""

from pathlib import Path
from typing import Literal, cast

import torch

from diptych.cli.options import UsageError
from diptych.cli.output import say
from diptych.config import nearest
from diptych.data.transforms import Preprocess
from diptych.errors import SettingsError
from diptych.models.clip import CLIP
from diptych.pretrained import available_models, load, model_of_run, usable_device
from diptych.weights.naming import split_name, with_activation

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def load_model(
    name: str, device: str, precision: str, activation: str | None = None
) -> tuple[str, CLIP, Preprocess]:
    """The model that `--model` means, where and in what `--device` and `--precision` ask for; first its name.

    The folder of a run stands for the model in it. A path becomes absolute, and keeps the activation that is stated
    for it, so that an index remembers both.
    """
    chosen_device, chosen_precision = choose(device, precision)
    place, stated = split_name(with_activation(name, activation))
    path = model_of_run(Path(place))
    full_name = place if place in available_models() or not path.exists() else str(path.resolve())
    full_name = with_activation(full_name, stated)
    model, preprocess = load(full_name, chosen_device, precision=chosen_precision)
    return full_name, model, preprocess


def choose(device: str, precision: str) -> tuple[str, Precision]:
    """The device and precision to run in; what `auto` became is said on stderr."""
    chosen_device = pick_device(device)
    chosen_precision = pick_precision(precision, chosen_device)
    if "auto" in (device, precision):
        say(f"computing on {chosen_device} in {chosen_precision}")
    return chosen_device, chosen_precision


def pick_device(wanted: str) -> str:
    """`wanted`, checked; `auto` is CUDA, else Apple's GPU, else the processor."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = wanted.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {wanted!r}: {nearest(kind, ('auto', 'cpu', 'cuda', 'mps'))}")
    try:
        usable_device(wanted)
    except SettingsError as error:
        raise UsageError(f"--device {wanted!r}: {error}; use --device auto") from None
    return wanted


def pick_precision(wanted: str, device: str) -> Precision:
    """`wanted`, checked; `auto` is bfloat16 where it is computed natively, else float32."""
    if wanted not in PRECISIONS:
        raise UsageError(f"--precision {wanted!r}: {nearest(wanted, PRECISIONS)}")
    if wanted != "auto":
        return cast(Precision, wanted)
    return "bfloat16" if has_native_bfloat16(device) else "float32"


def has_native_bfloat16(device: str) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware; emulation is slower than float32."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device != "cpu":
        return False
    features: dict[str, object] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # absent from older versions of torch
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
