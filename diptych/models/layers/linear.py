"""Linear maps by the fastest kernel that PyTorch has for them.

On an x86 processor PyTorch gives float32 matrix products to MKL, which leaves half the speed of some AMD
processors unused, and those of every other precision to oneDNN, which does not. Inference in float32 goes to oneDNN
here as well: 1.1 to 1.9 times as fast for ViT-B/32, depending on the processor, with features that differ by 3e-6.

PyTorch reaches oneDNN's linear map for plain tensors only through an operator without a public name, the one that
`torch.compile` emits; this is the only file that knows it, and a PyTorch without it uses `F.linear`. The public
ways cost more than they give: `torch.utils.mkldnn.to_mkldnn` wants a copy of the weights in an opaque layout, and a
1 x 1 convolution is slow for single texts and images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.models.layers.execution import is_cpu_inference

HAS_ONEDNN = torch.backends.cpu.get_cpu_capability().startswith("AVX") and hasattr(
    torch.ops.mkldnn, "_linear_pointwise"
)


class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias. x: (..., in); weight: (out, in); bias: (out,). Returns (..., out)."""
    if _onednn_applies(x, weight):
        mapped: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return mapped
    return F.linear(x, weight, bias)


def _onednn_applies(x: Tensor, weight: Tensor) -> bool:
    """Whether this is inference in float32; the operator has no gradient, and autocast does not know it."""
    return (
        HAS_ONEDNN
        and x.dtype == weight.dtype == torch.float32
        and is_cpu_inference(x)
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
    )
