"""Each formula of the models against a slow loop or an implementation that is not ours."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models.bag_of_words import BagOfWords
from diptych.models.modified_resnet import AttentionPool, Bottleneck
from diptych.models.text_transformer import sinusoidal_positions
from diptych.models.transformer import Attention, LayerNorm, QuickGELU
from tests.models.small_models import (
    CONTEXT,
    TEXT_TOWERS,
    VOCABULARY,
    random_texts,
    small_model,
    text_transformer_of,
)


def with_random_weights(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    module.double()


@pytest.mark.parametrize("gradients", [True, False])
def test_quick_gelu_is_x_times_the_sigmoid_of_1_702_x(gradients: bool) -> None:
    values = [-400.0, -30.0, -2.5, -1e-9, 0.0, 1e-9, 0.3, 1.0, 12.0, 400.0]
    x = torch.tensor(values, dtype=torch.float64)
    with torch.set_grad_enabled(gradients):
        found = QuickGELU()(x)
    expected = [value / (1 + math.exp(-1.702 * value)) for value in values]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-300)
    assert x.tolist() == values


def test_layer_norm_is_the_formula_of_each_row() -> None:
    torch.manual_seed(0)
    norm = LayerNorm(7).double()
    with_random_weights(norm)
    x = torch.randn(3, 7, dtype=torch.float64)
    for row, found in zip(x.tolist(), norm(x).tolist(), strict=True):
        mean = sum(row) / 7
        deviation = math.sqrt(sum((value - mean) ** 2 for value in row) / 7 + 1e-5)
        for i in range(7):
            expected = (row[i] - mean) / deviation * norm.weight[i].item() + norm.bias[i].item()
            assert found[i] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_layer_norm_of_half_precision_is_worked_out_in_the_precision_of_its_weights() -> None:
    x = 300 * torch.randn(4, 16, generator=torch.Generator().manual_seed(0)).half()  # whose squares overflow
    found = LayerNorm(16)(x)
    assert found.dtype == torch.float16
    assert torch.equal(found, F.layer_norm(x.float(), (16,)).half())


def slow_attention(module: Attention, x: Tensor, *, causal: bool) -> Tensor:
    """Softmax over explicit sums, one query of one head at a time."""
    batch, tokens, width = x.shape
    dim = width // module.heads
    out = torch.empty_like(x)
    for b in range(batch):
        query, key, value = (x[b] @ module.in_proj_weight.T + module.in_proj_bias).split(width, dim=-1)
        for head in range(module.heads):
            part = slice(head * dim, (head + 1) * dim)
            for t in range(tokens):
                last = t + 1 if causal else tokens
                scores = [float(query[t, part] @ key[s, part]) / math.sqrt(dim) for s in range(last)]
                weights = [math.exp(score) for score in scores]
                mixed = sum(w * value[s, part] for s, w in enumerate(weights))
                out[b, t, part] = mixed / sum(weights)
    return out @ module.out_proj.weight.T + module.out_proj.bias


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_a_softmax_of_scaled_products(causal: bool) -> None:
    torch.manual_seed(0)
    module = Attention(width=12, heads=3)
    with_random_weights(module)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    with torch.no_grad():
        expected = slow_attention(module, x, causal=causal)
        torch.testing.assert_close(module(x, causal=causal), expected, rtol=1e-12, atol=1e-12)
        position = torch.tensor([3, 1])
        found = module.at(x, position, causal=causal)
        torch.testing.assert_close(found, expected[[0, 1], position], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_takes_the_weights_of_multihead_attention(causal: bool) -> None:
    torch.manual_seed(0)
    reference = nn.MultiheadAttention(32, 4, batch_first=True).double()
    with_random_weights(reference)
    module = Attention(width=32, heads=4).double()
    module.load_state_dict(reference.state_dict())
    x = torch.randn(3, 6, 32, dtype=torch.float64)
    mask = torch.full((6, 6), -math.inf, dtype=torch.float64).triu(1) if causal else None
    expected, _ = reference(x, x, x, attn_mask=mask, need_weights=False)
    torch.testing.assert_close(module(x, causal=causal), expected, rtol=1e-12, atol=1e-12)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    for build in (lambda: Attention(48, 5), lambda: Attention(48, 0), lambda: AttentionPool(2, 48, 5, 8)):
        with pytest.raises(SettingsError, match=r"does not divide the width 48"):
            build()


def test_attention_pool_is_multihead_attention_of_the_mean_over_the_grid() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(grid=3, width=16, heads=4, embed_dim=10)
    with_random_weights(pool)
    x = torch.randn(2, 16, 3, 3, dtype=torch.float64)
    grid = x.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([grid.mean(dim=0, keepdim=True), grid]) + pool.positional_embedding[:, None]
    expected, _ = F.multi_head_attention_forward(
        query=tokens[:1],
        key=tokens,
        value=tokens,
        embed_dim_to_check=16,
        num_heads=4,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
        need_weights=False,
    )
    torch.testing.assert_close(pool(x), expected[0], rtol=1e-12, atol=1e-12)


def test_a_bottleneck_strides_by_an_average_pool() -> None:
    torch.manual_seed(0)
    block = Bottleneck(channels=6, planes=2, stride=2).double().eval()
    x = torch.randn(1, 6, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        out = block.bn1(block.conv1(x)).relu()
        out = block.bn2(block.conv2(out)).relu()
        pooled = out.view(1, 2, 4, 2, 4, 2).mean(dim=(3, 5))
        assert block.downsample is not None
        shortcut = block.downsample[2](block.downsample[1](x.view(1, 6, 4, 2, 4, 2).mean(dim=(3, 5))))
        expected = (block.bn3(block.conv3(pooled)) + shortcut).relu()
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoidal_positions_are_the_sines_and_cosines_of_the_paper(width: int) -> None:
    table = sinusoidal_positions(9, width, torch.device("cpu"))
    assert table.shape == (9, width)
    for position in range(9):
        for column in range(width):
            angle = position / 10_000 ** (2 * (column // 2) / width)
            expected = math.sin(angle) if column % 2 == 0 else math.cos(angle)
            assert table[position, column].item() == pytest.approx(expected, abs=2e-6)


def test_bag_of_words_is_the_mean_of_the_words_between_start_and_end() -> None:
    tower = small_model(text="bag-of-words").text
    assert isinstance(tower, BagOfWords)
    tokens = random_texts([2, 3, 7, CONTEXT])
    found = tower(tokens)
    for row, length, feature in zip(tokens.tolist(), [2, 3, 7, CONTEXT], found, strict=True):
        total = torch.zeros(tower.width, dtype=torch.float64)
        for word in row[1 : length - 1]:
            total += tower.token_embedding.weight[word]
        mean = total / max(1, length - 2)
        expected = F.layer_norm(mean, (tower.width,), tower.ln_final.weight, tower.ln_final.bias)
        torch.testing.assert_close(feature, expected @ tower.text_projection, rtol=1e-12, atol=1e-12)


def test_bag_of_words_does_not_see_order_padding_or_width() -> None:
    tower = small_model(text="bag-of-words").text
    tokens = random_texts([6])
    shuffled = tokens.clone()
    shuffled[0, 1:5] = tokens[0, [4, 1, 3, 2]]
    noisy = tokens.clone()
    noisy[0, 6:] = 5
    for same in (shuffled, noisy, tokens[:, :6]):
        torch.testing.assert_close(tower(same), tower(tokens), rtol=1e-12, atol=1e-12)
    changed = tokens.clone()
    changed[0, 2] = (tokens[0, 2] + 1) % (VOCABULARY - 2)
    assert not torch.allclose(tower(changed), tower(tokens))


def test_an_embedding_of_its_own_width_is_mapped_to_the_width_of_the_blocks() -> None:
    tower = text_transformer_of(small_model(text="narrow-embedding"))
    assert TEXT_TOWERS["narrow-embedding"].width == 128
    assert tower.token_embedding.weight.shape == (VOCABULARY, 32)
    assert tower.embedding_projection is not None
    assert tower.embedding_projection.weight.shape == (128, 32)
    merged = text_transformer_of(small_model(text="narrow-embedding"))
    merged.embedding_projection = None
    merged.token_embedding = nn.Embedding.from_pretrained(
        tower.token_embedding.weight @ tower.embedding_projection.weight.T
    )
    tokens = random_texts([4, 9])
    torch.testing.assert_close(merged(tokens), tower(tokens), rtol=1e-12, atol=1e-12)
