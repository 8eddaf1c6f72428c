"""The captioner: what sees what, what is shared, and that it learns its pictures by heart."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.building import build_model
from diptych.models.heads.captioner import Captioner, CellTower, reversed_texts
from diptych.models.heads.generation import beam_search
from tests.models.small_models import CONTEXT, IMAGE_TOWERS, VOCABULARY, random_texts

START, END = VOCABULARY - 2, VOCABULARY - 1
LENGTHS = [5, 12, 2, 8]


def captioner(reads: str = "both", width: int = 16) -> Captioner:
    torch.manual_seed(0)
    size = architectures.Captioner(
        decoder_layers=2,
        reads=reads,  # type: ignore[arg-type]
        heads=2,
        context_length=CONTEXT,
        vocab_size=VOCABULARY,
    )
    return Captioner(size, width)


def cells(rows: int, width: int = 16) -> Tensor:
    return torch.randn(rows, 5, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_token_changes_nothing_before_it_in_either_direction(direction: str) -> None:
    model, tokens = captioner().double(), random_texts([12, 12])
    read = tokens if direction == "forward" else reversed_texts(tokens)
    before = model(cells(2).double(), read, direction)
    for place in range(1, CONTEXT):
        changed = read.clone()
        changed[:, place] = (changed[:, place] + 1) % 50
        after = model(cells(2).double(), changed, direction)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.equal(after[:, place:], before[:, place:])


def test_the_masked_sibling_sees_both_sides_and_no_padding() -> None:
    model, tokens = captioner("masked").double(), random_texts([6, 6])
    before = model(cells(2).double(), tokens, "around")
    later, padded = tokens.clone(), tokens.clone()
    later[:, 4] += 1
    padded[:, 6:] = 7
    assert not torch.equal(model(cells(2).double(), later, "around")[:, 1], before[:, 1])
    assert torch.equal(model(cells(2).double(), padded, "around")[:, :6], before[:, :6])
    hidden = torch.zeros_like(tokens, dtype=torch.bool)
    hidden[:, 3] = True
    other = tokens.clone()
    other[:, 3] += 1
    seen = [model(cells(2).double(), each, "around", hidden)[:, :6] for each in (tokens, other)]
    assert torch.equal(*seen)
    with pytest.raises(SettingsError, match="has a mask to hide words with"):
        captioner()(cells(2), tokens, "forward", hidden)


def test_reversing_twice_is_the_identity_and_padding_stays_behind() -> None:
    tokens = random_texts(LENGTHS)
    turned = reversed_texts(tokens)
    assert torch.equal(turned[0, :5], tokens[0, :5].flip(0))
    assert torch.equal(turned[0, 5:], tokens[0, 5:])
    assert (turned[torch.arange(4), torch.tensor(LENGTHS) - 1] == START).all()
    twice = torch.stack(
        [row[: end + 1].flip(0) for row, end in zip(turned, tokens.argmax(1), strict=True)][:1]
    )
    assert torch.equal(twice[0], tokens[0, :5])


def test_directions_share_embeddings_and_output_and_start_as_copies() -> None:
    model = captioner()
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert names == {"token_embedding", "positional_embedding", "ln_embedding", "decoders", "output_bias"}
    ahead, back = (model.decoders[f"read_{way}"].state_dict() for way in ("forward", "backward"))
    assert all(torch.equal(ahead[name], back[name]) for name in ahead)
    assert ahead["0.linear1.weight"].data_ptr() != back["0.linear1.weight"].data_ptr()


def test_likelihood_at_the_start_is_about_that_of_guessing_and_equals_the_library() -> None:
    model, tokens = captioner(), random_texts(LENGTHS)
    found = model.log_likelihood(cells(4), tokens)
    assert -found.sum().item() / sum(length - 1 for length in LENGTHS) == pytest.approx(
        math.log(VOCABULARY), rel=0.02
    )
    for row, length in enumerate(LENGTHS):
        states = model(cells(4)[row : row + 1], tokens[row : row + 1, :length], "forward")[0, :-1]
        logits = states @ model.token_embedding.weight.T + model.output_bias
        expected = -F.cross_entropy(logits, tokens[row, 1:length], reduction="sum")
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.scores(cells(4), tokens).diagonal(), found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("image", list(IMAGE_TOWERS))
def test_every_parameter_of_the_image_tower_gets_a_gradient(image: str) -> None:
    size = architectures.Captioner(decoder_layers=1, heads=2, context_length=CONTEXT, vocab_size=VOCABULARY)
    model = build_model(architectures.Architecture(embed_dim=24, image=IMAGE_TOWERS[image], text=size))
    side = model.visual.input_resolution
    found = CellTower(model.visual)(torch.randn(2, 3, side, side))
    assert found.shape[2] == 24
    torch.testing.assert_close(
        found[:, 0], model.visual(torch.zeros(0, 3, side, side)).new_tensor(found[:, 0].tolist())
    )
    found.square().sum().backward()
    missing = [name for name, value in model.visual.named_parameters() if value.grad is None]
    assert missing == []
    with pytest.raises(SettingsError, match=r"captioner, which embeds no texts; .*; `diptych caption`"):
        model.encode_text(random_texts([4]))


def test_pictures_learnt_by_heart_come_back_word_for_word_by_beam_search() -> None:
    model = captioner(width=32)
    seen, tokens = cells(8, 32), random_texts([5, 7, 6, 4, 8, 5, 6, 7])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    words = sum((5, 7, 6, 4, 8, 5, 6, 7)) - 8
    for _ in range(80):
        optimizer.zero_grad()
        loss = -model.log_likelihood(seen, tokens).sum() / words
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    with torch.no_grad():
        for row, text in enumerate(tokens):
            found, likelihood = beam_search(
                functools.partial(model.next_word, seen[row]), START, END, 5, CONTEXT
            )
            assert found == text[: int(text.argmax()) + 1].tolist()
            again = model.log_likelihood(seen[row : row + 1], text[None]).item()
            assert likelihood == pytest.approx(again, abs=1e-4)
