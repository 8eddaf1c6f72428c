"""AdamW: which parameters learn how fast, and the moments in half the memory."""

import copy
import math
from typing import Any, cast

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.training.optim.optimizer import (
    CompactAdamW,
    _key_halves,
    build_optimizer,
    parameter_groups,
    rounding_noise,
    stochastic_bfloat16,
)
from diptych.training.optim.optimizer_settings import AdamWSettings

TEXT = architectures.TextTransformer(width=64, layers=2, context_length=8, vocab_size=30)
VIT = architectures.VisionTransformer(resolution=16, patch=8, width=64, layers=3)
RESNET = architectures.ModifiedResNet(resolution=32, layers=(1, 2, 1, 1), width=8)
CPU = torch.device("cpu")


def small_clip(
    image: architectures.VisionTransformer | architectures.ModifiedResNet = VIT,
    text: architectures.TextTransformer | architectures.BagOfWords = TEXT,
) -> ImageModel:
    torch.manual_seed(0)
    return build_model(architectures.Architecture(embed_dim=16, image=image, text=text))


def rates(model: nn.Module, settings: AdamWSettings) -> dict[str, float]:
    """Parameter name -> share of the learning rate."""
    names = {id(value): name for name, value in model.named_parameters()}
    groups = parameter_groups(model, settings)
    return {names[id(value)]: group["lr_scale"] for group in groups for value in group["params"]}


def small_model(seed: int = 0) -> nn.Module:
    """A convolution whose weight lies channels last, a matrix, gains, and a number."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm(6), nn.Linear(5, 7))
    model.register_parameter("logit_scale", nn.Parameter(torch.tensor(2.6)))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def set_gradients(model: nn.Module, step: int) -> None:
    """Gradients of several sizes, the same for the same step."""
    generator = torch.Generator().manual_seed(step)
    for number, value in enumerate(model.parameters()):
        size = 10.0 ** (-2 * number)
        value.grad = torch.empty_like(value).copy_(torch.randn(value.shape, generator=generator) * size)


def run(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        set_gradients(model, step)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (1 + step) * group["lr_scale"]
        optimizer.step()


# --- groups -----------------------------------------------------------------------------------------------------


def test_matrices_decay_and_gains_biases_and_the_temperature_do_not() -> None:
    model = small_clip()
    names = {id(value): name for name, value in model.named_parameters()}
    decays = {
        names[id(value)]: group["weight_decay"]
        for group in parameter_groups(model, AdamWSettings(weight_decay=0.2))
        for value in group["params"]
    }
    assert decays.keys() == {name for name, _ in model.named_parameters()}
    for name, value in model.named_parameters():
        assert decays[name] == (0.2 if value.ndim > 1 else 0.0), name
    assert decays["logit_scale"] == 0.0
    assert decays["visual.conv1.weight"] == 0.2


def test_without_layer_decay_there_are_two_groups_at_the_whole_rate() -> None:
    groups = parameter_groups(small_clip(), AdamWSettings())
    assert [group["lr_scale"] for group in groups] == [1.0, 1.0]
    assert len(parameter_groups(small_clip(), AdamWSettings(weight_decay=0.0))) == 2


def test_frozen_parameters_are_in_no_group() -> None:
    model = small_clip()
    model.visual.requires_grad_(False)
    assert not any(name.startswith("visual.") for name in rates(model, AdamWSettings()))


def test_each_layer_of_a_transformer_learns_at_a_power_of_the_decay() -> None:
    found = rates(small_clip(), AdamWSettings(layer_decay=0.5))
    expected = {
        "visual.conv1.weight": 4,  # three blocks and the embeddings below them
        "visual.class_embedding": 4,
        "visual.positional_embedding": 4,
        "visual.ln_pre.weight": 4,
        "visual.transformer.resblocks.0.attn.in_proj_weight": 3,
        "visual.transformer.resblocks.1.mlp.c_fc.bias": 2,
        "visual.transformer.resblocks.2.ln_2.weight": 1,
        "visual.ln_post.weight": 0,
        "visual.proj": 0,
        "text.token_embedding.weight": 3,  # each tower by its own depth
        "text.positional_embedding": 3,
        "text.transformer.resblocks.0.attn.out_proj.weight": 2,
        "text.transformer.resblocks.1.attn.out_proj.weight": 1,
        "text.ln_final.bias": 0,
        "text.text_projection": 0,
        "logit_scale": 0,
    }
    for name, distance in expected.items():
        assert found[name] == 0.5**distance, name
    assert len(found) == len(list(small_clip().named_parameters()))


def test_each_bottleneck_of_a_resnet_is_a_layer() -> None:
    found = rates(small_clip(image=RESNET), AdamWSettings(layer_decay=0.5))
    assert found["visual.conv1.weight"] == found["visual.bn3.bias"] == 0.5**6
    assert found["visual.layer1.0.conv2.weight"] == 0.5**5
    assert found["visual.layer2.0.downsample.0.weight"] == 0.5**4
    assert found["visual.layer2.1.bn1.weight"] == 0.5**3
    assert found["visual.layer4.0.conv3.weight"] == 0.5**1
    assert found["visual.attnpool.q_proj.weight"] == 1.0


def test_a_bag_of_words_has_its_embedding_one_below_the_top() -> None:
    text = architectures.BagOfWords(width=16, context_length=8, vocab_size=30)
    found = rates(small_clip(text=text), AdamWSettings(layer_decay=0.5))
    assert found["text.token_embedding.weight"] == 0.5
    assert found["text.text_projection"] == 1.0


def test_what_stands_in_no_tower_learns_at_the_whole_rate() -> None:
    assert set(rates(small_model(), AdamWSettings(layer_decay=0.5)).values()) == {1.0}


def test_layer_decay_reaches_the_update() -> None:
    model = small_clip()
    before = copy.deepcopy(model.state_dict())
    optimizer = build_optimizer(model, AdamWSettings(learning_rate=1e-3, weight_decay=0.0, layer_decay=0.5))
    for value in model.parameters():
        value.grad = torch.ones_like(value)
    optimizer.step()
    for name, distance in (("visual.class_embedding", 4), ("logit_scale", 0)):
        # Adam's first step is the learning rate times the sign of the gradient.
        moved = (before[name] - dict(model.named_parameters())[name]).mean().item()
        assert moved == pytest.approx(1e-3 * 0.5**distance, rel=1e-3)


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.5, float("nan")])
def test_a_layer_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(SettingsError, match="layer_decay"):
        parameter_groups(small_clip(), AdamWSettings(layer_decay=decay))


# --- AdamW ------------------------------------------------------------------------------------------------------


def test_moments_in_float32_are_torchs_adamw_to_the_bit() -> None:
    ours, theirs = small_model(), small_model()
    settings = AdamWSettings()
    decayed = [value for value in theirs.parameters() if value.ndim > 1]
    kept = [value for value in theirs.parameters() if value.ndim <= 1]
    reference = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": 0.2, "lr_scale": 1.0},
            {"params": kept, "weight_decay": 0.0, "lr_scale": 1.0},
        ],
        betas=(0.9, 0.98),
        eps=1e-6,
        fused=True,
    )
    run(ours, build_optimizer(ours, settings), 0, 20)
    run(theirs, reference, 0, 20)
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(found, expected)


def slow_noise(index: int, before: int, between: int) -> int:
    """The 32-bit hash of `rounding_noise`, in Python's unbounded integers."""
    x = (index + before) % 2**32
    x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
    x ^= between % 2**32
    x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def test_the_noise_is_the_published_hash_between_two_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for halves in ((5, -7), (-(2**31), 2**31 - 1), (123_456_789, 0)):
        monkeypatch.setattr("diptych.training.optim.optimizer._key_halves", lambda key, halves=halves: halves)
        found = rounding_noise(torch.Size((3, 5)), CPU, (0,)).flatten().tolist()
        assert [value % 2**32 for value in found] == [slow_noise(n, *halves) for n in range(15)]


def test_the_noise_is_uniform_and_new_for_each_part_of_the_key() -> None:
    shape = torch.Size((200, 500))
    keys = [(0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1), (1, 0, 0)]
    noises = [rounding_noise(shape, CPU, key) for key in keys]
    for noise in noises:
        for half in (noise & 0xFFFF, (noise >> 16) & 0xFFFF):
            counts = torch.bincount((half >> 10).flatten(), minlength=64)
            assert chisquare(counts.numpy()).pvalue > 1e-4
    for first in range(len(keys)):
        for second in range(first):
            pair = torch.stack([(noises[n] & 0xFFFF).flatten().double() for n in (first, second)])
            # Independent rows of 100,000: a correlation of 5 / sqrt(100,000) is five standard errors.
            assert abs(torch.corrcoef(pair)[0, 1].item()) < 5 / 100_000**0.5


def test_stochastic_rounding_is_to_a_neighbour_and_right_on_average() -> None:
    value = torch.tensor([1.0, -1.0, 3e-30, 7.77e20, 1 / 3, -2 / 3, 0.0, 1.0 + 2**-9])
    below = (value.view(torch.int32) & -65_536).view(torch.float32)
    above = ((value.view(torch.int32) & -65_536) + 65_536).view(torch.float32)
    draws = 40_000
    noise = rounding_noise(torch.Size((draws, len(value))), CPU, (3,)) & 0xFFFF
    rounded = stochastic_bfloat16(value.expand(draws, -1).contiguous(), noise).double()
    assert ((rounded == below) | (rounded == above)).all()
    gap = (above.double() - below.double()).abs()
    off = (rounded.mean(dim=0) - value.double()).abs() / gap
    assert (off < 5 * 0.5 / draws**0.5).all()  # five standard errors of a coin
    assert (rounded[:, value == below] == below[value == below]).all()


def slow_compact_adamw(
    weights: list[float], gradients: list[list[float]], decay: float, number: int, seed: int
) -> tuple[list[float], list[float], list[float]]:
    """Weights and both moments after a step for each list of gradients, in float64 but for the rounding."""

    def rounded(value: float, noise: int) -> float:
        bits = torch.tensor(value, dtype=torch.float32).view(torch.int32).item() + noise
        return torch.tensor(int(bits) & -65_536, dtype=torch.int32).view(torch.float32).item()

    first, second = [0.0] * len(weights), [0.0] * len(weights)
    for step, gradient in enumerate(gradients):
        rate, count = 1e-2 / (1 + step), step + 1
        halves = _key_halves((seed, count, number))
        for i, g in enumerate(gradient):
            m = 0.9 * first[i] + 0.1 * g
            v = 0.98 * second[i] + 0.02 * g * g
            weights[i] *= 1 - rate * decay
            weights[i] -= rate * (m / (1 - 0.9**count)) / (math.sqrt(v / (1 - 0.98**count)) + 1e-6)
            noise = slow_noise(i, *halves)
            first[i], second[i] = rounded(m, noise & 0xFFFF), rounded(v, noise >> 16)
    return weights, first, second


def test_moments_in_bfloat16_follow_a_slow_loop() -> None:
    steps, seed = 12, 9
    model = small_model()
    groups = parameter_groups(model, AdamWSettings())
    decay = {id(value): group["weight_decay"] for group in groups for value in group["params"]}
    start = [value.detach().clone() for value in model.parameters()]
    gradients: list[list[Tensor]] = []
    for step in range(steps):
        set_gradients(model, step)
        gradients.append([cast(Tensor, value.grad).clone() for value in model.parameters()])
    optimizer = build_optimizer(model, AdamWSettings(moments="bfloat16"), seed)
    run(model, optimizer, 0, steps)
    elements = equal = 0
    for number, value in enumerate(model.parameters()):
        weights, first, second = slow_compact_adamw(
            start[number].flatten().tolist(),
            [every[number].flatten().tolist() for every in gradients],
            decay[id(value)],
            number,
            seed,
        )
        # The update is in float32: 12 roundings of weights of about 1, steps of at most 1e-2.
        torch.testing.assert_close(value.flatten(), torch.tensor(weights), rtol=1e-5, atol=1e-6)
        for kind, slow in (("exp_avg", first), ("exp_avg_sq", second)):
            moment = optimizer.state[value][kind].float().flatten()
            equal += int((moment == torch.tensor(slow)).sum())
            elements += moment.numel()
    # Where float32 and float64 differ in the last bit, one draw in 65,536 falls between them.
    assert equal >= 0.99 * elements


def test_moments_in_bfloat16_take_half_of_the_bytes() -> None:
    sizes = {}
    for moments in ("float32", "bfloat16"):
        model = small_clip()
        optimizer = build_optimizer(model, AdamWSettings(moments=moments))
        for value in model.parameters():
            value.grad = torch.ones_like(value)
        optimizer.step()
        assert optimizer.state.keys() == set(model.parameters())
        for parameter, state in optimizer.state.items():
            assert state.keys() == {"step", "exp_avg", "exp_avg_sq"}
            assert state["exp_avg"].shape == state["exp_avg_sq"].shape == parameter.shape
        sizes[moments] = sum(
            tensor.nbytes
            for state in optimizer.state.values()
            for kind, tensor in state.items()
            if kind != "step"
        )
    assert sizes["bfloat16"] * 2 == sizes["float32"]


def test_moments_in_bfloat16_train_as_well_as_in_float32() -> None:
    """Least squares with noise in the targets: after 200 steps the losses are within 2 % of each other."""
    torch.manual_seed(0)
    inputs = torch.randn(256, 20)
    targets = inputs @ torch.randn(20, 5) + torch.randn(256, 5)
    losses = {}
    for moments in ("float32", "bfloat16"):
        torch.manual_seed(1)
        model = nn.Linear(20, 5)
        settings = AdamWSettings(weight_decay=0.0, betas=(0.9, 0.999), moments=moments)
        optimizer = build_optimizer(model, settings)
        for step in range(200):
            model.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (1 - step / 200)
            optimizer.step()
        losses[moments] = loss.item()
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] < 1.0  # the noise has a variance of 1, of which the fit takes a part


def test_rounded_to_the_nearest_a_second_moment_would_never_fall() -> None:
    """The stochastic rounding's reason to exist, beside its broken twin."""
    weight = nn.Parameter(torch.zeros(2_000))
    optimizer = CompactAdamW(
        [{"params": [weight], "numbers": [0], "lr": 0.0, "lr_scale": 1.0, "weight_decay": 0.0}],
        betas=(0.9, 0.999),
        eps=1e-6,
        seed=0,
    )
    weight.grad = torch.ones(2_000)
    optimizer.step()
    nearest = optimizer.state[weight]["exp_avg_sq"].clone()
    start = nearest.float().mean().item()
    weight.grad = torch.zeros(2_000)
    for _ in range(700):
        optimizer.step()
        nearest = (nearest.float() * 0.999).to(torch.bfloat16)
    assert nearest.float().mean().item() == pytest.approx(start, rel=0.01)
    fallen = optimizer.state[weight]["exp_avg_sq"].float().mean().item()
    assert fallen == pytest.approx(start * 0.999**700, rel=0.02)


def test_a_resumed_run_rounds_as_the_unbroken_one() -> None:
    settings = AdamWSettings(moments="bfloat16")
    whole = small_model()
    run(whole, build_optimizer(whole, settings, 3), 0, 10)
    broken = small_model()
    before = build_optimizer(broken, settings, 3)
    run(broken, before, 0, 6)
    resumed = small_model(seed=8)
    resumed.load_state_dict(broken.state_dict())
    torch.rand(100)  # no global generator takes part
    after = build_optimizer(resumed, settings, 3)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    assert all(state["exp_avg"].dtype == torch.bfloat16 for state in after.state.values())
    run(resumed, after, 6, 10)
    for found, expected in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_another_seed_rounds_otherwise() -> None:
    found = []
    for seed in (0, 1):
        model = small_model()
        optimizer = build_optimizer(model, AdamWSettings(moments="bfloat16"), seed)
        run(model, optimizer, 0, 5)
        found.append(torch.cat([state["exp_avg"].flatten() for state in optimizer.state.values()]))
    assert not torch.equal(found[0], found[1])


def test_how_a_parameter_lies_in_memory_changes_nothing() -> None:
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model: Any = small_model().to(memory_format=layout)  # type: ignore[call-overload]
        run(model, build_optimizer(model, AdamWSettings(moments="bfloat16")), 0, 5)
        found.append(model)
    for first, second in zip(found[0].parameters(), found[1].parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_tensor_is_widened_a_slice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = small_model()
    run(whole, build_optimizer(whole, AdamWSettings(moments="bfloat16")), 0, 3)
    monkeypatch.setattr("diptych.training.optim.optimizer._SLICE", 10)
    widened: list[int] = []

    def noted(values: Tensor, noise: Tensor) -> Tensor:
        widened.append(values.numel())
        return stochastic_bfloat16(values, noise)

    monkeypatch.setattr("diptych.training.optim.optimizer.stochastic_bfloat16", noted)
    model = small_model()
    run(model, build_optimizer(model, AdamWSettings(moments="bfloat16")), 0, 3)
    assert sum(widened) == 3 * 2 * sum(value.numel() for value in model.parameters())
    assert max(widened) == 27  # a slice holds at least one row: an output channel of the convolution
    for found, expected in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_parameters_without_a_gradient_stay_as_they_are() -> None:
    model = small_model()
    optimizer = build_optimizer(model, AdamWSettings(moments="bfloat16"))
    optimizer.step()
    assert not optimizer.state
    bias = cast(nn.Linear, model[2]).bias  # type: ignore[index]
    bias.grad = torch.ones_like(bias)
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["2.bias"]
    assert list(optimizer.state) == [bias]
