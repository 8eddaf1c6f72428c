"""Low-rank adaptation (LoRA: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1).

A frozen matrix W acts as W + scale * up @ down, where `up` and `down` have few columns and rows. `up` begins at
zero, so that the model begins as it was. The sum is made in the space of weights, so that a merged model is the same
function, and whatever reads the weight (one token of attention, a fast kernel) sees the sum.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.image_model import ImageModel
from diptych.models.modified_resnet import AttentionPool, Bottleneck
from diptych.models.transformer import MLP, Attention

# A module, the name of its weight, and how many matrices are stacked in it.
Adapted = tuple[nn.Module, str, int]


class LowRankUpdate(nn.Module):
    """weight -> weight + scale * up @ down, for a weight of which `parts` matrices are stacked (query, key, value)."""

    def __init__(self, weight: Tensor, rank: int, scale: float, parts: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.scale = scale
        self.parts = parts
        self.down = nn.Parameter(torch.randn(parts * rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """weight: (rows, ...); a convolution's is taken as one matrix of what it sees of the image."""
        pairs = zip(self.up.chunk(self.parts), self.down.chunk(self.parts), strict=True)
        return weight + self.scale * torch.cat([up @ down for up, down in pairs]).view(weight.shape)


def add_low_rank(model: ImageModel, size: architectures.LowRank) -> None:
    """Give every adapted weight of the chosen towers its update. Raises SettingsError for a tower without any."""
    if size.rank < 1:
        raise SettingsError(f"low_rank: rank {size.rank}: expected at least 1")
    for tower in size.towers:
        side = model.visual if tower == "image" else model.text
        found = list(adapted_weights(side))
        if not found:
            raise SettingsError(
                f"low_rank: the {tower} tower is a {type(side).__name__}, which has no attention and no MLP to "
                "adapt; name the other tower in [finetune] adapts"
            )
        for module, name, parts in found:
            update = LowRankUpdate(getattr(module, name), size.rank, size.scale, parts)
            parametrize.register_parametrization(module, name, update, unsafe=True)


def adapted_weights(tower: nn.Module) -> Iterator[Adapted]:
    """Yield the weights of attention and of MLPs; in a ResNet, of the attention pool and of the 1 x 1 convolutions."""
    for module in tower.modules():
        if isinstance(module, Attention):
            yield module, "in_proj_weight", 3
            yield module.out_proj, "weight", 1
        elif isinstance(module, MLP):
            yield module.c_fc, "weight", 1
            yield module.c_proj, "weight", 1
        elif isinstance(module, AttentionPool):
            for linear in (module.q_proj, module.k_proj, module.v_proj, module.c_proj):
                yield linear, "weight", 1
        elif isinstance(module, Bottleneck):
            yield module.conv1, "weight", 1
            yield module.conv3, "weight", 1
