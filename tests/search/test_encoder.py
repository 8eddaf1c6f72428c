"""The whole way with a model: pictures in, an index, questions, the right pictures out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import open_source
from diptych.embed.encode import embed_images, embed_texts
from diptych.embed.source_rows import uri_of
from diptych.models.image_model import ImageModel
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.search.image_index import Index
from diptych.search.query import QueryPart, Question
from diptych.search.searcher import Searcher
from diptych.search.stores.image_rows import item_id


@pytest.fixture
def encoder(tiny_clip: ImageModel, tiny_preprocess: Preprocess) -> Encoder:
    return Encoder(tiny_clip, tiny_preprocess, "tiny", batch_size=4)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return folder


def test_a_picture_finds_itself(encoder: Encoder, photos: Path, tmp_path: Path) -> None:
    (photos / "4.png").write_bytes(b"no image")
    summary = refresh(tmp_path / "index", open_source(photos), encoder)
    assert summary.added == 9
    assert [Path(row.uri).name for row in summary.skipped] == ["4.png"]
    index = Index(tmp_path / "index")
    index.require(encoder)
    for number in (0, 3, 9):
        best = index.search(encoder.images([photos / f"{number}.png"])[0], count=1)[0]
        assert Path(best.item.uri) == photos / f"{number}.png"
        assert best.item.caption == f"picture {number}"
        assert (best.item.width, best.item.height) == (16, 16)
        assert best.score == pytest.approx(1, abs=1e-3)


def test_words_find_what_a_loop_over_the_pictures_finds(
    encoder: Encoder, tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Path, tmp_path: Path
) -> None:
    refresh(tmp_path / "index", open_source(photos), encoder)
    paths = sorted(photos.glob("*.png"))
    images = embed_images(tiny_clip, tiny_preprocess, paths)
    scores = images @ embed_texts(tiny_clip, ["a red bicycle"])[0]
    found = Index(tmp_path / "index").search(encoder.texts(["a red bicycle"])[0], count=10)
    assert {Path(hit.item.uri): hit.score for hit in found} == pytest.approx(
        dict(zip(paths, scores.tolist(), strict=True)), abs=1e-3
    )


def test_words_and_a_picture_are_added_as_unit_vectors(
    encoder: Encoder, tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Path, tmp_path: Path
) -> None:
    refresh(tmp_path / "index", open_source(photos), encoder)
    text = embed_texts(tiny_clip, ["at night"])[0]
    image = embed_images(tiny_clip, tiny_preprocess, [photos / "0.png"])[0]
    both = (text + image) / np.linalg.norm(text + image)
    with Index(tmp_path / "index") as index:
        question = Question((QueryPart(text="at night"), QueryPart(image=photos / "0.png")))
        answer = Searcher(index, encoder).search(question)
        expected = index.search(both, count=10)
    assert [found.item for found in answer.found] == [hit.item for hit in expected]
    assert [found.score for found in answer.found] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert answer.seconds_embedding > 0


def test_the_bundled_sample_can_be_indexed(encoder: Encoder, tmp_path: Path) -> None:
    source = open_source("sample:test")
    summary = refresh(tmp_path / "index", source, encoder)
    assert (summary.added, summary.skipped) == (len(source), [])
    item = next(Index(tmp_path / "index").items(f"id = {item_id(uri_of(source, source[0]))}"))
    assert item.uri.startswith("sample:test#")
    assert item.caption == source[0].captions[0]
