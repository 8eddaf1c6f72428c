"""Which device and which precision `auto` means on this machine."""

from typing import cast

import torch

from diptych.config import nearest
from diptych.errors import SettingsError, UsageError
from diptych.pretrained import Precision, usable_device

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def pick_device(wanted: str) -> str:
    """Return the device of `--device`; `auto` is CUDA, else Apple's GPU, else the CPU."""
    kind, known = wanted.partition(":")[0], ("auto", "cpu", "cuda", "mps")
    if kind not in known:
        raise UsageError(f"--device {wanted!r}: {nearest(kind, known)}")
    try:
        return str(usable_device(wanted))
    except SettingsError as error:
        raise UsageError(f"--device {wanted!r}: {error}; use --device auto") from None


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
