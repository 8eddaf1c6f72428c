"""How a model is being run: the shortcuts of inference on a CPU do not suit every run."""

import torch
from torch import Tensor


def is_cpu_inference(x: Tensor) -> bool:
    """Return whether `x` is computed on a CPU, without gradients, now and not in a compiled graph later."""
    recorded = torch.compiler.is_compiling() or is_exported()
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not recorded


def is_exported() -> bool:
    """Return whether an exporter records the run, in which nothing may depend on values: it is for other batches."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
