"""The model that a run starts from."""

from dataclasses import replace
from pathlib import Path

import pytest

from diptych.errors import SettingsError
from diptych.training.settings import ModelSettings
from diptych.training.starting import starting_model
from tests.finetuning.pictures import recipe, saved_clip, small_clip


def test_a_checkpoint_of_another_architecture_is_refused_with_the_fields_that_differ(tmp_path: Path) -> None:
    init = saved_clip(tmp_path / "model")
    other = replace(small_clip().architecture, embed_dim=24, activation="gelu")
    asked = replace(
        recipe(tmp_path, init, "full"), model=ModelSettings(init=init, architecture=other), finetune=None
    )
    with pytest.raises(SettingsError, match="embed_dim is 12, the recipe has 24") as refused:
        starting_model(asked, lambda _: None)
    assert ("activation is" in str(refused.value)) == (small_clip().architecture.activation != "gelu")
    assert "leave `architecture` out" in str(refused.value)
