import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.data.images.augmentations import CentreCrop
from diptych.data.images.canvas import canvas_for
from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Loader
from diptych.data.subsets.mixture import MixtureSource, open_mixture
from diptych.data.subsets.permuted import ShuffledCaptions
from diptych.data.subsets.weighting import example_weights
from diptych.errors import SettingsError
from tests.data.tar_files import pairs, png, write_tar

pytestmark = pytest.mark.usefixtures("user_cache")


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, str]:
    """Two tar shards of five pairs each, and a table of ten."""
    for number in range(2):
        write_tar(tmp_path / f"{number}.tar", pairs([f"{row}" for row in range(5)], source="shards"))
    (tmp_path / "a.png").write_bytes(png())
    rows = [{"image": "a.png", "caption": f"row {row}", "source": str(row % 2)} for row in range(10)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"{tmp_path}/*.tar", f"{tmp_path}/t.jsonl"


@pytest.fixture
def mixture(places: tuple[str, str]) -> MixtureSource:
    return open_mixture({places[0]: 3.0, places[1]: 0.5})


def test_a_mixture_has_the_examples_of_its_sources_one_after_the_other(mixture: MixtureSource) -> None:
    assert len(mixture) == 20
    assert len({mixture[position].key for position in range(20)}) == 20
    assert (mixture[7].captions, mixture[10].captions) == (("a 2",), ("row 0",))
    assert (mixture.parts, mixture.mixed) == ((5, 5, 10), (2, 1))
    assert mixture.weights.tolist() == [3.0] * 10 + [0.5] * 10
    for position in (-1, 20):
        with pytest.raises(IndexError):
            mixture[position]


def test_keys_in_a_mixture_stay_when_a_source_is_added_in_front(
    mixture: MixtureSource, places: tuple[str, str]
) -> None:
    more = open_mixture({places[1]: 1.0, places[0]: 1.0})
    assert {mixture[position].key for position in range(20)} == {more[position].key for position in range(20)}
    assert mixture[0].key == more[10].key


def test_weights_by_metadata_and_held_out_examples_hold_inside_a_mixture(mixture: MixtureSource) -> None:
    assert example_weights(mixture, None, {}, {}).tolist() == mixture.weights.tolist()
    weights = example_weights(mixture, "source", {"shards": 2.0}, {"source": ("1",)})
    assert weights.tolist() == [6.0] * 10 + [0.5, 0.0] * 5


def test_a_loader_draws_a_mixture_in_its_exact_proportions(mixture: MixtureSource) -> None:
    canvas = canvas_for(CentreCrop(), Preprocess(8))
    weights = example_weights(mixture, None, {}, {})
    for source in (mixture, ShuffledCaptions(mixture, 0)):
        loader = Loader(source, canvas, ids, 7, 0, weights)
        # 30 of the shards and 5 of the table are an epoch.
        rows = np.concatenate([batch.rows.numpy() for batch in islice(loader.batches(0), 5)])
        assert np.bincount(rows, minlength=20)[:10].tolist() == [3] * 10
        assert (rows >= 10).sum() == 5
        shares = (rows.reshape(5, 7) >= 10).sum(axis=1)
        assert shares.max() <= 2


def ids(texts: Sequence[str]) -> torch.Tensor:
    return torch.zeros(len(texts), 1)


def test_a_mixture_says_what_it_is_made_of(mixture: MixtureSource) -> None:
    text = mixture.describe()
    assert "10 examples in 2 tar shards" in text
    assert "3 times an epoch: 85.7% of the mixture" in text
    assert "0.5 times an epoch: 14.3% of the mixture" in text


def test_the_fingerprint_follows_the_sources(places: tuple[str, str], mixture: MixtureSource) -> None:
    assert open_mixture({places[0]: 1.0, places[1]: 9.0}).fingerprint == mixture.fingerprint
    assert open_mixture({places[1]: 1.0, places[0]: 9.0}).fingerprint != mixture.fingerprint


def test_columns_are_for_the_tables_of_a_mixture(places: tuple[str, str]) -> None:
    mixture = open_mixture({places[0]: 1.0, places[1]: 1.0}, caption_column="source")
    assert mixture[10].captions == ("0",)
    with pytest.raises(SettingsError, match="not a table"):
        open_mixture({places[0]: 1.0}, caption_column="source")


@pytest.mark.parametrize("times", [{}, {"a.tar": 0.0}, {"a.tar": -1.0}, {"a.tar": float("nan")}])
def test_a_mixture_of_nothing_is_an_error(times: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=r"\[data\] mixture"):
        open_mixture(times)
