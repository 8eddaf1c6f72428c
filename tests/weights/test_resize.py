"""A model at another resolution."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diptych.errors import SettingsError
from diptych.weights.resize import at_resolution, resize_grid
from tests.weights.small_clip import RESNET, VIT, openai_state, small_clip


@pytest.mark.parametrize("side", [2, 3, 6, 9])
def test_positions_are_resized_as_open_clip_resizes_them(open_clip: Any, side: int) -> None:
    positions = torch.randn(1 + 4 * 4, 24, generator=torch.Generator().manual_seed(0))
    state = {"visual.positional_embedding": positions}
    visual = SimpleNamespace(grid_size=(side, side))
    open_clip.model.resize_pos_embed(state, SimpleNamespace(visual=visual))
    assert torch.equal(resize_grid(positions, side), state["visual.positional_embedding"])


@pytest.mark.parametrize("architecture", [VIT, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("factor", [0.5, 1.5, 2])
def test_a_resized_model_takes_the_new_size_and_keeps_the_other_weights(
    architecture: Any, factor: float
) -> None:
    model = small_clip(architecture)
    resolution = int(architecture.image.resolution * factor)
    resized = at_resolution(model, resolution)
    assert resized.visual.input_resolution == resized.architecture.image.resolution == resolution
    assert not resized.training
    with torch.inference_mode():
        features = resized.encode_image(torch.zeros(1, 3, resolution, resolution))
    assert features.isfinite().all()
    before, after = openai_state(model), openai_state(resized)
    changed = {
        name
        for name in before
        if not (before[name].shape == after[name].shape and torch.equal(before[name], after[name]))
    }
    assert changed == {
        next(name for name in before if name.startswith("visual.") and name.endswith("positional_embedding"))
    }


def test_the_models_own_resolution_changes_nothing() -> None:
    model = small_clip()
    assert at_resolution(model, 32) is model


@pytest.mark.parametrize(("resolution", "usable"), [(36, 32), (37, 40), (3, 8), (0, 8), (-8, 8)])
def test_a_resolution_between_the_strides_is_refused_with_the_nearest(resolution: int, usable: int) -> None:
    with pytest.raises(SettingsError, match=f"found {resolution}; try {usable}"):
        at_resolution(small_clip(), resolution)
