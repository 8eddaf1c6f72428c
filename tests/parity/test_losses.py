"""The objectives beside other people's (open_clip, pytorch-metric-learning, timm): values and gradients in float64.

Distillation beside open_clip is in `tests/objectives/test_clip_distillation.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.objectives.directional import convirt
from diptych.objectives.infonce import infonce
from diptych.objectives.next_word import captioning
from diptych.objectives.nt_xent import nt_xent
from diptych.objectives.pairs import Pairs
from diptych.objectives.sigmoid import sigmoid
from diptych.objectives.transfer_and_ranking import cosine_ranking
from diptych.training.optim.lars import LARS

ROWS = 9
MINE = torch.arange(ROWS)
OTHERS = (
    MINE.clone()
)  # pytorch-metric-learning takes the same tensor of labels for the same rows, and drops the pairs


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sides() -> tuple[Tensor, Tensor]:
    """Unit length, so that code which norms its inputs has the same gradient along the sphere."""
    left, right = F.normalize(numbers(ROWS, 6, seed=1), dim=1), F.normalize(numbers(ROWS, 6, seed=2), dim=1)
    return left.requires_grad_(), right.requires_grad_()


def along(rows: Tensor, gradient: Tensor) -> Tensor:
    """The part of a gradient that turns a row: pytorch-metric-learning norms the rows again."""
    rows = rows.detach()
    return gradient - (gradient * rows).sum(dim=1, keepdim=True) * rows


def assert_same(own: Tensor, other: Tensor, leaves: Sequence[Tensor], *, normed: bool = False) -> None:
    torch.testing.assert_close(own, other, rtol=1e-10, atol=0)
    found, expected = (torch.autograd.grad(loss, leaves) for loss in (own, other))
    for leaf, one, two in zip(leaves, found, expected, strict=True):
        turned = (along(leaf, one), along(leaf, two)) if normed and leaf.ndim == 2 else (one, two)
        torch.testing.assert_close(*turned, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def losses(metric_learning: Any) -> Any:
    return metric_learning.losses


def direction(losses: Any, temperature: float, rows: Tensor, others: Tensor) -> Tensor:
    """-log p of each row's partner among the others, the mean over rows."""
    found: Tensor = losses.NTXentLoss(temperature)(rows, MINE, ref_emb=others, ref_labels=OTHERS)
    return found


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_equals_metric_learnings(losses: Any, temperature: float) -> None:
    first, second = sides()
    total, count = nt_xent(Pairs.whole(first, second), temperature)
    other = losses.NTXentLoss(temperature)(torch.cat([first, second]), torch.cat([MINE, MINE]))
    assert_same(total / count, other, (first, second), normed=True)


def test_convirt_is_two_of_metric_learnings_losses_in_one_direction_each(losses: Any) -> None:
    image, text = sides()
    total, count = convirt(Pairs.whole(image, text), 0.1, 0.75)
    other = 0.75 * direction(losses, 0.1, image, text) + 0.25 * direction(losses, 0.1, text, image)
    assert_same(total / count, other, (image, text), normed=True)


@pytest.mark.parametrize("groups", [list(range(ROWS)), [0, 1, 0, 2, 2, 2, 3, 4, 4]])
def test_infonce_equals_open_clips_loss_and_with_groups_the_supervised_contrastive_one(
    losses: Any, open_clip: Any, groups: list[int]
) -> None:
    image, text = sides()
    scale = torch.tensor(14.0, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor(groups)
    total, count = infonce(Pairs.whole(image, text, ids), scale)
    supervised = losses.SupConLoss(1 / 14.0)
    both = [
        supervised(one, ids, ref_emb=other, ref_labels=ids.clone())
        for one, other in ((image, text), (text, image))
    ]
    assert_same(total / count, (both[0] + both[1]) / 2, (image, text), normed=True)
    if len(set(groups)) == ROWS:
        total, _ = infonce(Pairs.whole(image, text, ids), scale)
        assert_same(total / count, open_clip.loss.ClipLoss()(image, text, scale), (image, text, scale))


def test_sigmoid_equals_open_clips_siglip_loss(open_clip: Any) -> None:
    image, text = sides()
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (10.0, -10.0))
    total, count = sigmoid(Pairs.whole(image, text), scale, bias)
    other = open_clip.loss.SigLipLoss()(image, text, scale, bias)
    assert_same(total / count, other, (image, text, scale, bias))


def test_captioning_equals_the_captioning_part_of_open_clips_coca_loss(open_clip: Any) -> None:
    states, table, bias = (
        numbers(*shape, seed=seed).requires_grad_()
        for shape, seed in (((4, 6, 3), 3), ((8, 3), 4), ((8,), 5))
    )
    tokens = torch.randint(1, 8, (4, 6), generator=torch.Generator().manual_seed(6))
    ends = torch.tensor([5, 2, 4, 1])
    total, count = captioning(states, table, bias, tokens, ends)
    padded = tokens.where(torch.arange(6) <= ends[:, None], 0)  # CoCa looks at the padding's id
    logits = (states @ table.T + bias)[:, :-1]
    _, other = open_clip.loss.CoCaLoss(1.0, 0.0)(None, None, logits, padded[:, 1:], None)
    assert_same(total / count, other, (states, table, bias))


@pytest.mark.parametrize("margin", [0.1, 0.7])
def test_ranking_equals_metric_learnings_triplets_of_cosines(
    losses: Any, metric_learning: Any, margin: float
) -> None:
    left, right = sides()
    total, _ = cosine_ranking(Pairs.whole(left, right), margin)
    triplets = losses.TripletMarginLoss(
        margin,
        distance=metric_learning.distances.CosineSimilarity(),
        reducer=metric_learning.reducers.SumReducer(),
    )
    other = sum(
        triplets(one, MINE, ref_emb=others, ref_labels=OTHERS)
        for one, others in ((left, right), (right, left))
    )
    assert isinstance(other, Tensor)
    assert_same(total, other, (left, right), normed=True)


def test_ranking_equals_torchs_multi_margin_loss() -> None:
    left, right = sides()
    total, _ = cosine_ranking(Pairs.whole(left, right), 0.4)
    similarities = left @ right.T
    other = sum(
        ROWS * F.multi_margin_loss(rows, MINE, margin=0.4, reduction="sum")
        for rows in (similarities, similarities.T)
    )
    assert isinstance(other, Tensor)
    assert_same(total, other, (left, right))


def test_lars_without_decay_takes_the_steps_of_timms(timm_optim: Any) -> None:
    """With decay timm's trust ratio is another: it adds the norms of gradient and decay, not the vectors."""

    def trained(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> Tensor:
        weight = nn.Parameter(numbers(5, 4, seed=7))
        optimizer = make([weight])
        for step in range(4):
            weight.grad = numbers(5, 4, seed=10 + step)
            optimizer.step()
        return weight.detach()

    own = trained(lambda params: LARS([{"params": params, "weight_decay": 0.0, "lr": 0.3}], trust=1e-2))
    other = trained(
        lambda params: timm_optim.Lars(
            params, lr=0.3, momentum=0.9, trust_coeff=1e-2, eps=0.0, always_adapt=True
        )
    )
    torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-9)  # the norms are in float32
    assert (own - numbers(5, 4, seed=7)).norm() > 0.01
