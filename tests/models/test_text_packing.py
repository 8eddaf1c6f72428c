"""Prompts that begin alike: every beginning is computed once, and sees its own past alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diptych.models import text_transformer
from diptych.models.layers.text_packing import Packing, order_of_batches, pack
from tests.models.small_models import (
    CONTEXT,
    TEXT_TOWERS,
    VOCABULARY,
    random_texts,
    small_model,
    text_transformer_of,
)

START, END = VOCABULARY - 2, VOCABULARY - 1
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def prompts() -> Tensor:
    """Every one of 15 names, of one to three tokens, in every one of 6 templates; some templates begin alike."""
    names = [
        [1],
        [2],
        [1, 2],
        [2, 2],
        [1, 2, 3],
        [1, 3, 3],
        [4, 1],
        [4, 1, 5],
        [5],
        [5, 4],
        [6],
        [7],
        [7, 1],
        [8],
        [9],
    ]
    templates = [
        ([], []),
        ([10], []),
        ([10, 11], []),
        ([10, 11], [12]),
        ([10, 13, 11], [14]),
        ([15, 10, 11, 13], [12, 14]),
    ]
    rows = [[START, *before, *name, *after, END] for name in names for before, after in templates]
    return torch.tensor([row + [0] * (CONTEXT - len(row)) for row in rows])


def one_by_one(model: torch.nn.Module, tokens: Tensor) -> Tensor:
    """Each text on its own, with gradients: neither packed nor cut with others."""
    return torch.cat([model(row[None]).detach() for row in tokens])


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference of a component, over the largest component."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", TEXT_TOWERS)
def test_prompts_that_share_beginnings_are_encoded_as_each_alone(kind: str, dtype: torch.dtype) -> None:
    tower = small_model(text=kind, dtype=dtype).text
    tokens = prompts()
    expected = one_by_one(tower, tokens)
    with torch.inference_mode():
        for shuffled in (tokens, tokens.flip(0), tokens[torch.randperm(len(tokens))]):
            places = [(tokens == row).all(dim=1).nonzero().item() for row in shuffled]
            assert error(tower(shuffled), expected[places]) <= TOLERANCE[dtype]


def pasts(packing: Packing) -> list[list[int]]:
    """The rows that each row sees, first to last; one that is seen twice stands twice."""
    keys = packing.keys[:, None].expand_as(packing.seen).flatten(0, 1)
    found = [sorted(key[seen].tolist()) for key, seen in zip(keys, packing.seen.flatten(0, 1), strict=True)]
    queries = packing.queries.flatten().tolist()
    assert queries == [min(row, len(packing.tokens) - 1) for row in range(len(queries))]
    return found[: len(packing.tokens)]


@pytest.mark.parametrize("texts", ["prompts", "random", "no end token"])
def test_a_row_sees_exactly_the_beginnings_of_its_own_text(texts: str) -> None:
    torch.manual_seed(0)
    tokens = {
        "prompts": prompts(),
        "random": random_texts([int(n) for n in torch.randint(2, CONTEXT + 1, (200,))], words=2),
        "no end token": torch.randint(0, 12, (200, CONTEXT)),
    }[texts]
    packing = pack(tokens)
    assert len(packing.keys) > 4
    seen = pasts(packing)
    for row, end in zip(tokens.tolist(), packing.ends.tolist(), strict=True):
        text = row[: row.index(max(row)) + 1]
        # The past of the end token spells the text; the past of each of its rows spells a beginning.
        assert packing.tokens[seen[end]].tolist() == text
        assert packing.positions[seen[end]].tolist() == list(range(len(text)))
        for length, member in enumerate(seen[end], start=1):
            assert seen[member] == seen[end][:length]


@pytest.mark.parametrize("kind", ["transformer", "sinusoidal", "narrow-embedding"])
def test_a_row_that_sees_its_neighbours_is_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: causal by place alone, as if a stretch were one text."""

    def leaky(tokens: Tensor, find_ends: Callable[[Tensor], Tensor]) -> Packing:
        packing = pack(tokens, find_ends)
        return replace(packing, seen=packing.keys[:, None] <= packing.queries[:, :, None])

    tower = text_transformer_of(small_model(text=kind))
    expected = one_by_one(tower, prompts())
    monkeypatch.setattr(text_transformer, "pack", leaky)
    with torch.inference_mode():
        assert error(tower(prompts()), expected) > 1e-3


def test_on_a_cpu_batches_are_in_the_order_of_their_tokens() -> None:
    torch.manual_seed(0)
    tokens = torch.cat([prompts(), random_texts([3, 5, 2, 12])])[torch.randperm(94)]
    order = order_of_batches(tokens, torch.device("cpu"))
    assert tokens[order].tolist() == sorted(tokens.tolist())


def test_elsewhere_batches_are_in_the_order_of_length() -> None:
    tokens = random_texts([5, 3, 12, 3, 2])
    assert order_of_batches(tokens, torch.device("meta")).tolist() == [4, 1, 3, 0, 2]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_no_texts_have_an_order(device: str) -> None:
    assert order_of_batches(torch.zeros(0, CONTEXT, dtype=torch.int64), torch.device(device)).tolist() == []


def test_batches_in_that_order_compute_fewer_beginnings_than_batches_by_length() -> None:
    tokens = prompts()
    distinct = len({tuple(text[: i + 1]) for text in tokens.tolist() for i in range(text.index(END) + 1)})

    def rows(device: str) -> int:
        order = order_of_batches(tokens, torch.device(device))
        return sum(len(pack(tokens[batch]).tokens) for batch in torch.split(order, 16))

    # Each of the 6 batches computes again at most the path to its first text.
    assert distinct <= rows("cpu") <= distinct + 6 * CONTEXT
    assert rows("meta") > 1.1 * rows("cpu")
