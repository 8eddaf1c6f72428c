"""Which patches stay, and that the tower sees these and no others."""

import itertools

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from diptych.errors import SettingsError
from diptych.models.layers.patch_dropout import kept_patches, splitmix64
from diptych.models.vision_transformer import VisionTransformer
from tests.models.small_models import small_model, vision_transformer_of


def slow_splitmix64(number: int) -> int:
    """The published finaliser, in Python's unbounded integers."""
    z = number % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def slow_tower(tower: VisionTransformer, pixels: Tensor, kept: Tensor) -> Tensor:
    """Every patch is projected and gets its position, then those that stay are looked up one by one."""
    every = tower.conv1(pixels).flatten(2).transpose(1, 2)
    rows = []
    for image, numbers in zip(every, kept, strict=True):
        tokens = [tower.class_embedding + tower.positional_embedding[0]]
        tokens += [image[n] + tower.positional_embedding[n + 1] for n in numbers.tolist()]
        rows.append(torch.stack(tokens))
    x = tower.ln_pre(torch.stack(rows))
    pooled: Tensor = tower.ln_post(tower.transformer(x)[:, 0])
    return pooled @ tower.proj


def test_the_hash_is_splitmix64() -> None:
    # The generator's first outputs for the seed 1234567 (Rosetta Code, Pseudo-random numbers/Splitmix64).
    step = 0x9E3779B97F4A7C15
    states = [1234567 + step * n for n in (1, 2, 3)]
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [slow_splitmix64(state) for state in states] == published
    numbers = [0, 1, -1, 2**63 - 1, -(2**63), 123_456_789_012_345]
    found = splitmix64(torch.tensor(numbers))
    assert [value % 2**64 for value in found.tolist()] == [slow_splitmix64(n) for n in numbers]


def test_every_subset_is_equally_likely() -> None:
    subsets = {subset: n for n, subset in enumerate(itertools.combinations(range(6), 3))}
    kept = kept_patches(torch.arange(20_000), 6, 0.5)
    counts = torch.zeros(len(subsets))
    for row in kept.tolist():
        counts[subsets[tuple(row)]] += 1  # a KeyError where a row is not ascending or repeats a patch
    assert chisquare(counts.numpy()).pvalue > 1e-3
    # The same test sees a choice that leans: the first patch twice as likely to stay.
    leaning = kept.clone()
    leaning[: len(kept) // 10] = torch.tensor([0, 1, 2])
    leaned = torch.zeros(len(subsets))
    for row in leaning.tolist():
        leaned[subsets[tuple(row)]] += 1
    assert chisquare(leaned.numpy()).pvalue < 1e-9


def test_neighbouring_seeds_choose_independently() -> None:
    kept = kept_patches(torch.arange(4_000), 50, 0.5)
    chosen = torch.zeros(4_000, 50).scatter_(1, kept, 1.0)
    shared = (chosen[1:] * chosen[:-1]).sum(dim=1).mean()
    # Of 25 out of 50, two independent draws share 12.5 on average, with a standard error of 1.79 / sqrt(4,000).
    assert abs(shared.item() - 12.5) < 5 * 1.79 / 4_000**0.5


def test_a_row_depends_on_its_seed_alone() -> None:
    seeds = torch.randint(-(2**63), 2**63 - 1, (40,))
    whole = kept_patches(seeds, 49, 0.75)
    torch.testing.assert_close(torch.cat([kept_patches(part, 49, 0.75) for part in seeds.split(7)]), whole)
    torch.testing.assert_close(kept_patches(seeds.flip(0), 49, 0.75).flip(0), whole)


@pytest.mark.parametrize(("share", "count"), [(0.0, 49), (0.5, 24), (0.75, 12), (0.999, 1)])
def test_the_nearest_number_of_patches_stays_and_at_least_one(share: float, count: int) -> None:
    kept = kept_patches(torch.arange(3), 49, share)
    assert kept.shape == (3, count)
    assert kept.dtype == torch.int64
    assert (kept.diff(dim=1) > 0).all()


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(SettingsError, match="patch_dropout"):
        kept_patches(torch.arange(3), 49, share)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_kept_patches_equal_a_slow_lookup_in_features_and_gradients(share: float) -> None:
    model = small_model()
    tower = vision_transformer_of(model)
    pixels = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    kept = kept_patches(torch.arange(5), tower.patches, share)
    direction = torch.randn(5, 24, dtype=torch.float64)
    found = model.visual(pixels, kept)
    expected = slow_tower(tower, pixels, kept)
    # Sums in another order, in float64.
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    parameters = list(tower.parameters())
    for ours, theirs in zip(
        torch.autograd.grad((found * direction).sum(), parameters),
        torch.autograd.grad((expected * direction).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_the_left_out_patches_are_not_seen() -> None:
    model = small_model()
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    kept = kept_patches(torch.tensor([3, 4]), 16, 0.5)
    noisy = pixels.clone()
    for image, numbers in zip(noisy, kept.tolist(), strict=True):
        for left_out in set(range(16)) - set(numbers):
            top, side = 8 * (left_out // 4), 8 * (left_out % 4)
            image[:, top : top + 8, side : side + 8] = 99.0
    assert torch.equal(model.visual(noisy, kept), model.visual(pixels, kept))


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_without_dropout_every_patch_is_seen_in_its_place(
    gradients: bool, layout: torch.memory_format
) -> None:
    model = small_model()
    model.visual.to(memory_format=layout)  # type: ignore[call-overload]
    pixels = torch.randn(3, 3, 32, 32, dtype=torch.float64).contiguous(memory_format=layout)
    kept = kept_patches(torch.arange(3), 16, 0.0)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(
            model.visual(pixels, kept), model.encode_image(pixels), rtol=1e-12, atol=1e-12
        )


def test_patch_dropout_computes_in_the_precision_of_autocast() -> None:
    model = small_model(dtype=torch.float32)
    pixels = torch.randn(3, 3, 32, 32)
    kept = kept_patches(torch.arange(3), 16, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.visual(pixels, kept)
    assert found.dtype == torch.bfloat16
    expected = model.visual(pixels, kept)
    # bfloat16 has 8 bits; three blocks add up their roundings.
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
