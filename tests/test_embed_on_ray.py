"""Embedding in the workers of a local Ray: the rows of the plain path, whatever becomes of a worker."""

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.data.example import Example
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source, open_source
from diptych.embed.embedding_files import Part, part_of
from diptych.embed.on_ray import Share, embed_on_ray, share_of
from diptych.embed.source_rows import embed_source
from diptych.errors import CheckpointError
from diptych.models.image_model import ImageModel
from diptych.models.vision_transformer import VisionTransformer
from tests.tiny_model import preprocessing, random_clip

COUNT = 70


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Of the workers, which import this file."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for folder in Path(__file__).parents[:2]:
            environment.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def ray(environment: None) -> Iterator[None]:
    """A Ray of two processors on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray  # noqa: PLC0415 - two seconds to import

        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawings, two of which cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    dice = np.random.default_rng(0)
    for number in range(COUNT):
        Image.fromarray(dice.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / f"{number:03}.png")
        (folder / f"{number:03}.txt").write_text(f"drawing {number}")
    (folder / "003.png").write_bytes(b"")
    (folder / "041.png").write_bytes((folder / "040.png").read_bytes()[:200])
    return folder


def load() -> tuple[ImageModel, Preprocess]:
    return random_clip(), preprocessing()


def load_damaged() -> tuple[ImageModel, Preprocess]:
    model = random_clip()
    assert isinstance(model.visual, VisionTransformer)
    model.visual.proj.data.fill_(float("nan"))
    return model, preprocessing()


class Deadly:
    """A source at one of whose rows a worker dies, the first time."""

    def __init__(self, source: Source, position: int, mark: Path) -> None:
        self._source, self._position, self._mark = source, position, mark
        self.name, self.fingerprint = source.name, source.fingerprint

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> Example:
        if position == self._position and not self._mark.exists():
            self._mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return self._source[position]

    def describe(self) -> str:
        return self._source.describe()


def plain(source: Source, positions: range, batch_size: int) -> list[Part]:
    model, preprocess = load()
    batches = embed_source(model, preprocess, source, positions=positions, batch_size=batch_size, hashes=True)
    return [part_of(batch) for batch in batches]


def assert_same(found: list[Part], expected: list[Part]) -> None:
    """Batch for batch the same rows; vectors to the rounding of other numbers of threads."""
    assert [part.rows for part in found] == [part.rows for part in expected]
    assert [part.skipped for part in found] == [part.skipped for part in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-6)


@pytest.mark.usefixtures("ray")
def test_the_rows_are_those_of_the_plain_path_though_a_worker_dies(photos: Path, tmp_path: Path) -> None:
    source, mark = open_source(photos), tmp_path / "died"
    found = list(embed_on_ray(load, Deadly(source, 60, mark), batch_size=4, workers=1))
    assert int(mark.read_text()) != os.getpid()
    assert_same(found, plain(source, range(COUNT), 4))
    assert sum(len(part.rows) for part in found) == COUNT - 2


@pytest.mark.usefixtures("ray")
def test_what_a_worker_finds_wrong_is_raised_here(photos: Path) -> None:
    with pytest.raises(CheckpointError, match="not finite"):
        list(embed_on_ray(load_damaged, open_source(photos), positions=range(10, 30), workers=1))


@pytest.mark.nightly
@pytest.mark.usefixtures("ray")
def test_several_workers_give_their_rows_in_order(photos: Path, tmp_path: Path) -> None:
    source = open_source(photos)
    for position in (0, 33, 69):
        deadly = Deadly(source, position, tmp_path / str(position))
        found = list(embed_on_ray(load, deadly, batch_size=2, workers=2))
        assert (tmp_path / str(position)).exists()
        assert_same(found, plain(source, range(COUNT), 2))


@pytest.mark.nightly
def test_ray_is_started_and_stopped_where_there_is_none(photos: Path) -> None:
    import ray  # noqa: PLC0415 - two seconds to import

    source = open_source(photos)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if ray.is_initialized():
            ray.shutdown()
        found = list(embed_on_ray(load, source, positions=range(10, 30), batch_size=4))
    assert not ray.is_initialized()
    assert_same(found, plain(source, range(10, 30), 4))


def test_an_empty_stretch_needs_no_cluster(photos: Path) -> None:
    assert list(embed_on_ray(load, open_source(photos), positions=range(0))) == []


@pytest.mark.parametrize(
    ("resources", "workers", "expected"),
    [
        ({"CPU": 2.0}, None, Share(1, 2, 0)),
        ({"CPU": 16.0}, None, Share(8, 2, 0)),
        ({"CPU": 1.0}, None, Share(1, 1, 0)),
        ({"CPU": 64.0, "GPU": 8.0}, None, Share(8, 8, 1)),
        ({"CPU": 64.0, "GPU": 8.0}, 16, Share(16, 4, 0.5)),
        ({"CPU": 64.0, "GPU": 8.0}, 4, Share(4, 16, 1)),
        ({"CPU": 2.0}, 4, Share(4, 1, 0)),
    ],
)
def test_a_cluster_is_shared_among_its_workers(
    resources: dict[str, float], workers: int | None, expected: Share
) -> None:
    assert share_of(resources, workers) == expected
