"""What the towers leave out changes nothing: padding, repetitions, and all but one token of the last block."""

import pytest
import torch
from torch import Tensor

from diptych.models import vision_transformer
from diptych.models.architectures import TextTransformer as TextTransformerSize
from diptych.models.layers.text_packing import pack
from diptych.models.text_transformer import TextTransformer
from tests.models.small_models import (
    CONTEXT,
    VOCABULARY,
    random_texts,
    resnet_of,
    small_model,
    text_transformer_of,
    vision_transformer_of,
)

TRANSFORMERS = ["transformer", "sinusoidal", "narrow-embedding"]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
LENGTHS = [7, 2, 9, 3, 7, 5, 4]


def text_transformer(kind: str, dtype: torch.dtype) -> TextTransformer:
    return text_transformer_of(small_model(text=kind, dtype=dtype))


def whole_run(tower: TextTransformer, tokens: Tensor) -> Tensor:
    """Every token of every block at full width, and only then the end token."""
    end = tokens.argmax(dim=1)
    return tower.project(tower.tokens(tokens)[torch.arange(len(tokens)), end])


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference of a component, over the largest component."""
    return ((found.double() - expected.double()).abs().max() / expected.abs().max().double()).item()


def batches() -> dict[str, Tensor]:
    torch.manual_seed(1)
    mixed = random_texts(LENGTHS)
    many = random_texts([int(n) for n in torch.randint(2, CONTEXT + 1, (150,))], words=3)  # share beginnings
    return {
        "one text": random_texts([5]),
        "an empty text": random_texts([2]),
        "several lengths": mixed,
        "the longest": random_texts([CONTEXT, 4]),
        "equal texts": mixed[[0, 1, 0, 0, 1]],
        "one inside another": torch.tensor([[1, 2, 0, 3], [1, 2, 0, 0], [1, 2, 0, 3], [1, 0, 0, 2]]),
        "shared beginnings": many,
        "no end token": torch.randint(0, VOCABULARY, (20, CONTEXT)),
        "narrow and int32": mixed[:, :9].int(),
    }


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_cut_and_packed_texts_equal_the_whole_run(kind: str, dtype: torch.dtype) -> None:
    tower = text_transformer(kind, dtype)
    for name, tokens in batches().items():
        with torch.no_grad():
            expected = whole_run(tower, tokens)
            packed = tower(tokens)
        cut = tower(tokens)  # with gradients
        assert cut.requires_grad
        assert error(cut, expected) <= TOLERANCE[dtype], name
        assert error(packed, expected) <= TOLERANCE[dtype], name


def test_a_long_context_is_cut_exactly() -> None:
    torch.manual_seed(0)
    size = TextTransformerSize(width=64, layers=2, vocab_size=VOCABULARY)
    tower = TextTransformer(size, 16, "quick_gelu").double()
    tokens = torch.zeros(3, 77, dtype=torch.int64)
    tokens[:, :CONTEXT] = random_texts([CONTEXT, 3, 8])
    expected = whole_run(tower, tokens)
    assert error(tower(tokens), expected) <= 1e-12
    with torch.inference_mode():
        assert error(tower(tokens), expected) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_packed_texts_in_half_precision_err_as_the_whole_run_errs(dtype: torch.dtype) -> None:
    tokens = batches()["shared beginnings"]
    reference, half = text_transformer("transformer", torch.float64), text_transformer("transformer", dtype)
    with torch.no_grad():
        expected = whole_run(reference, tokens)
        unavoidable = error(whole_run(half, tokens), expected)
        assert 1e-4 < unavoidable < 0.1
        assert error(half(tokens), expected) < 1.5 * unavoidable


def test_under_autocast_packed_texts_are_close_to_the_whole_run() -> None:
    tower, tokens = text_transformer("transformer", torch.float32), batches()["several lengths"]
    with torch.no_grad():
        expected = whole_run(tower, tokens)
        with torch.autocast("cpu", torch.bfloat16):
            found = tower(tokens)
    assert found.dtype == torch.bfloat16
    assert 1e-4 < error(found, expected) < 0.05


def test_a_packed_batch_has_one_row_for_each_distinct_beginning() -> None:
    for name, tokens in batches().items():
        packing = pack(tokens)
        texts = [tuple(row[: row.index(max(row)) + 1]) for row in tokens.tolist()]
        beginnings = {text[: i + 1] for text in texts for i in range(len(text))}
        rows = list(zip(packing.positions.tolist(), packing.tokens.tolist(), strict=True))
        assert sorted(rows) == sorted((len(beginning) - 1, beginning[-1]) for beginning in beginnings), name
        assert [rows[end] for end in packing.ends.tolist()] == [(len(t) - 1, t[-1]) for t in texts], name
        assert packing.queries.unique().tolist() == list(range(len(beginnings))), name


def test_what_follows_the_end_token_does_not_matter() -> None:
    tower, tokens = text_transformer("transformer", torch.float64), random_texts([5, 9, 3])
    noisy = tokens.clone()
    for row, length in enumerate([5, 9, 3]):
        noisy[row, length:] = torch.arange(CONTEXT - length)
    with torch.no_grad():
        assert error(tower(noisy), tower(tokens)) <= 1e-12
    assert error(tower(noisy), tower(tokens)) <= 1e-12


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_gradients_of_the_cut_run_equal_those_of_the_whole_run(kind: str) -> None:
    tower, tokens = text_transformer(kind, torch.float64), random_texts(LENGTHS)
    direction = torch.randn(len(LENGTHS), 24, dtype=torch.float64)
    gradients = []
    for run in (lambda: tower(tokens), lambda: whole_run(tower, tokens)):
        tower.zero_grad()
        (run() * direction).sum().backward()
        gradients.append({name: value.grad for name, value in tower.named_parameters()})
    for name, expected in gradients[1].items():
        assert expected is not None
        torch.testing.assert_close(gradients[0][name], expected, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("gradients", [True, False])
def test_the_pooled_image_token_equals_the_first_of_all_tokens(dtype: torch.dtype, gradients: bool) -> None:
    model = small_model(dtype=dtype)
    pixels = torch.randn(3, 3, 32, 32).to(dtype)
    with torch.set_grad_enabled(gradients):
        expected = model.image_tokens(pixels)[:, 0]
        assert error(model.image_features(pixels), expected) <= TOLERANCE[dtype]
        assert (
            error(model.encode_image(pixels), expected @ vision_transformer_of(model).proj)
            <= TOLERANCE[dtype]
        )


@pytest.mark.parametrize("tokens_at_once", [1, 40, 1024])
def test_a_batch_of_images_taken_in_parts_is_the_whole_batch(
    tokens_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision_transformer, "_CACHED_TOKENS", tokens_at_once)
    model = small_model()
    for count in (0, 1, 5):
        pixels = torch.randn(count, 3, 32, 32, dtype=torch.float64)
        with torch.no_grad():
            found = model.encode_image(pixels)
        torch.testing.assert_close(found, model.encode_image(pixels), rtol=1e-12, atol=1e-12)


def test_exported_towers_hold_for_other_batches_and_longer_texts() -> None:
    model = small_model(dtype=torch.float32)
    batch = ({0: torch.export.Dim("batch")},)
    pixels, longer = torch.randn(70, 3, 32, 32), random_texts([CONTEXT, 3, 5, 2, CONTEXT])
    with torch.no_grad():
        image = torch.export.export(model.visual, (pixels[:2],), dynamic_shapes=batch).module()
        text = torch.export.export(model.text, (random_texts([4, 5, 3]),), dynamic_shapes=batch).module()
        assert error(image(pixels), model.encode_image(pixels)) <= 1e-5
        assert error(text(longer), model.encode_text(longer)) <= 1e-5


def test_gradients_of_the_pooled_image_token_equal_those_of_the_whole_block() -> None:
    tower = vision_transformer_of(small_model())
    pixels = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    direction = torch.randn(3, 24, dtype=torch.float64)
    gradients = []
    for run in (lambda: tower(pixels), lambda: tower.tokens(pixels)[:, 0] @ tower.proj):
        tower.zero_grad()
        (run() * direction).sum().backward()
        gradients.append({name: value.grad for name, value in tower.named_parameters()})
    for name, expected in gradients[1].items():
        assert expected is not None
        torch.testing.assert_close(gradients[0][name], expected, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", ["resnet", "resnet-stem-stride-2"])
def test_the_pooled_query_of_a_resnet_equals_the_first_of_all_queries(kind: str) -> None:
    model = small_model(image=kind)
    pixels = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = model.image_tokens(pixels)[:, 0]
    assert error(model.image_features(pixels), expected) <= 1e-12
    assert error(model.encode_image(pixels), resnet_of(model).attnpool.c_proj(expected)) <= 1e-12
