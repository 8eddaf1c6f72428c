"""Scenes that experiments keep as shards are the scenes that are drawn."""

from pathlib import Path

import numpy as np
import pytest

from diptych.data.images.decoding import read_rgb
from diptych.data.sources.opening import open_source

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    "name", ["scenes:train?count=12&side=16&distractors=3", "scenes:classes-test?count=48&side=16&seed=1"]
)
def test_packed_scenes_are_those_that_are_drawn(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    from packed_scenes import packed  # noqa: PLC0415

    place = packed(name, tmp_path)
    assert packed(name, tmp_path) == place
    drawn, kept = open_source(name), open_source(place)
    assert len(drawn) == len(kept)
    for row in range(len(drawn)):
        one, other = drawn[row], kept[row]
        assert (one.captions, one.label) == (other.captions, other.label)
        assert dict(one.metadata).items() <= dict(other.metadata).items()
        assert np.array_equal(read_rgb(one.image), read_rgb(other.image))
    assert packed("scenes:test?count=8&sound=1", tmp_path) == "scenes:test?count=8&sound=1"
