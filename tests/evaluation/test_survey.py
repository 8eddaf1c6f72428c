"""The rows of a source in memory: on one process, and shared over several."""

from pathlib import Path

import numpy as np
import pytest

from diptych.data.sources.opening import open_source
from diptych.errors import DataError
from diptych.evaluation.survey import EmbeddedRows, embed_rows, encoded_rows, feature_rows
from diptych.models.vision_transformer import VisionTransformer
from tests.processes import run_processes
from tests.tiny_model import preprocessing, random_clip

_TORN = (3, 4)  # rows of the source below that are no images

_ONE_OF_SEVERAL = """
import numpy as np
from pathlib import Path
from diptych.distributed import processes
from diptych.data.sources.opening import open_source
from diptych.evaluation.survey import embed_rows
from tests.tiny_model import preprocessing, random_clip
with processes("cpu") as here:
    rows = embed_rows(
        random_clip(), preprocessing(), open_source({folder!r}), {positions!r}, batch_size=2, progress=None
    )
    np.savez(Path({out!r}) / f"{{here.rank}}.npz", vectors=rows.vectors, positions=rows.positions,
             skipped=[row.position for row in rows.skipped])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image  # noqa: PLC0415

    place = tmp_path_factory.mktemp("pictures")
    for number in range(7):
        file = place / f"{number}.png"
        if number in _TORN:
            file.write_bytes(b"no picture")
        else:
            Image.new("RGB", (8, 8), (30 * number, 0, 255 - 30 * number)).save(file)
        file.with_suffix(".txt").write_text(f"picture {number}")
    return place


def _rows(folder: Path, positions: list[int]) -> EmbeddedRows:
    source = open_source(folder)
    return embed_rows(random_clip(), preprocessing(), source, positions, batch_size=2, progress=None)


@pytest.mark.parametrize(
    "positions", [list(range(7)), [3, 4, 0, 6, 1]], ids=["all", "first share unreadable"]
)
def test_two_processes_get_the_rows_of_one(folder: Path, tmp_path: Path, positions: list[int]) -> None:
    alone = _rows(folder, positions)
    script = _ONE_OF_SEVERAL.format(
        folder=str(folder),
        positions=positions,
        out=str(tmp_path),
    )
    for code, _, errors in run_processes(2, ["-c", script]):
        assert code == 0, errors
    for rank in range(2):
        found = np.load(tmp_path / f"{rank}.npz")
        # Other batches: the sums of a matrix product may be added in another order.
        np.testing.assert_allclose(found["vectors"], alone.vectors, atol=1e-6)
        assert found["positions"].tolist() == alone.positions
        assert found["skipped"].tolist() == [row.position for row in alone.skipped]


_ONE_FAILS = """
from diptych.distributed import processes
from diptych.data.sources.opening import open_source
from diptych.errors import DiptychError
from diptych.evaluation.survey import encoded_rows, embed_rows
from tests.tiny_model import preprocessing, random_clip
import torch
model, source = random_clip(), open_source({folder!r})
def encode(pixels):
    if here.rank == 1:
        raise DiptychError("the second one is broken")
    return torch.zeros(len(pixels), 1).numpy()
with processes("cpu") as here:
    try:
        encoded_rows(encode, preprocessing(), source, range(7), device=torch.device("cpu"), batch_size=2, progress=None)
    except DiptychError as error:
        print(error)
    # Whoever goes on does so together with the others.
    print(len(embed_rows(model, preprocessing(), source, range(7), batch_size=2, progress=None).positions))
"""


def test_what_fails_in_one_process_fails_in_all_and_the_next_task_goes_on(folder: Path) -> None:
    script = _ONE_FAILS.format(folder=str(folder))
    (code, first, errors), (_, second, _) = run_processes(2, ["-c", script], seconds=120)
    assert code == 0, errors
    assert first.splitlines() == ["process 1: the second one is broken", "5"]
    assert second.splitlines() == ["the second one is broken", "5"]


def test_features_are_those_before_the_projection(folder: Path) -> None:
    model, preprocess, source = random_clip(), preprocessing(), open_source(folder)
    features = feature_rows(model, preprocess, source, [0, 1], batch_size=2, progress=None)
    assert isinstance(model.visual, VisionTransformer)
    unit = features.vectors @ model.visual.proj.detach().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, _rows(folder, [0, 1]).vectors, atol=1e-5)


def test_any_function_of_images_may_stand_in_the_models_place(folder: Path) -> None:
    model = random_clip()
    rows = encoded_rows(
        lambda pixels: np.array([[image.mean()] for image in pixels], np.float32),
        preprocessing(),
        open_source(folder),
        range(7),
        device=model.logit_scale.device,
        batch_size=3,
        progress=None,
    )
    assert rows.vectors.shape == (5, 1)
    assert rows.positions == [0, 1, 2, 5, 6]


def test_no_readable_image_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match="none of 2 images could be read"):
        _rows(folder, list(_TORN))
