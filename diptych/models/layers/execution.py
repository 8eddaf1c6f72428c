"""How a model is being run: the shortcuts of inference on a CPU do not suit every run."""

import torch
from torch import Tensor


def is_cpu_inference(x: Tensor) -> bool:
    """Whether what is done with `x` happens on a CPU, without gradients, now and not in a compiled graph later."""
    recorded = torch.compiler.is_compiling() or is_exported()
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not recorded


def is_exported() -> bool:
    """Whether an exporter records the run: it must hold for other batches, so that nothing may depend on values."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
