"""`diptych.build_index` and `diptych.open_index`: from data to results without another name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diptych
from diptych import pretrained
from diptych.search import search_index
from diptych.search.query import Match
from tests.tiny_model import preprocessing, random_clip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model `tiny`, ten images in `photos`, and their index `photos.index`."""
    folder = tmp_path_factory.mktemp("here")
    diptych.save(random_clip(), preprocessing(), folder / "tiny")
    (folder / "photos").mkdir()
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
        (folder / "photos" / f"{number}.txt").write_text(f"image {number}")
    built = diptych.build_index(
        folder / "photos", folder / "photos.index", model=folder / "tiny", device="cpu"
    )
    assert (built.added, built.total, built.skipped) == (10, 10, [])
    return folder


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are loaded from now on."""
    names: list[str] = []
    load = pretrained.load

    def counted(name: str, *arguments: object, **options: object) -> object:
        names.append(name)
        return load(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(search_index, "load", counted)
    return names


def captions(matches: list[Match]) -> list[str]:
    return [match.item.caption or "" for match in matches]


def test_words_rank_as_their_embeddings_do(here: Path) -> None:
    model, preprocess = diptych.load(here / "tiny", device="cpu")
    paths = sorted((here / "photos").glob("*.png"))
    scores = (
        diptych.embed_images(model, preprocess, paths) @ diptych.embed_texts(model, "a red bicycle").T
    ).ravel()
    with diptych.open_index(here / "photos.index", device="cpu") as index:
        found = index.search("a red bicycle", limit=10)
        assert len(index) == 10
    assert {Path(match.item.uri): match.score for match in found} == pytest.approx(
        dict(zip(paths, scores.tolist(), strict=True)), abs=1e-3
    )


def test_paths_bytes_pillow_images_and_parts_find_an_image(here: Path) -> None:
    file = here / "photos" / "7.png"
    with diptych.open_index(here / "photos.index", device="cpu") as index, Image.open(file) as image:
        for query in (file, file.read_bytes(), image, diptych.QueryPart(image=file), [file]):
            assert captions(index.search(query, limit=1)) == ["image 7"]
        both = index.search([file, diptych.QueryPart(image=here / "photos" / "2.png", weight=3.0)], limit=1)
        assert captions(both) == ["image 2"]


def test_the_options_are_those_of_the_command_line(here: Path) -> None:
    with diptych.open_index(here / "photos.index", device="cpu") as index:
        everything = captions(index.search("a bird", limit=10))
        assert captions(index.search("a bird", limit=3, offset=2)) == everything[2:5]
        assert captions(index.search("a bird", where='caption = "image 4"')) == ["image 4"]
        assert index.search("a bird", min_score=0.999) == []
        assert sorted(captions(index.search("a bird", diversity=1.0, exact=True))) == sorted(everything)
        grouped = index.search("a bird", unique=True, sort="newest")
        assert sum(1 + len(match.duplicates) for match in grouped) == 10 > len(grouped)
        with pytest.raises(diptych.SettingsError, match="count 0"):
            index.search("a bird", limit=0)


def test_the_model_is_loaded_by_the_first_query_that_needs_it(here: Path, loads: list[str]) -> None:
    with diptych.open_index(here / "photos.index", device="cpu") as index:
        first = index.images(limit=1)[0]
        assert len(index.search(diptych.QueryPart(id=first.id), limit=10)) == 9
        assert loads == []
        index.search("a bird")
        index.search("a cat")
    assert loads == [str(here / "tiny")]


def test_images_are_listed_without_a_query(here: Path, loads: list[str]) -> None:
    with diptych.open_index(here / "photos.index") as index:
        listed = index.images(limit=4, offset=1, where='caption contains "image"')
        assert len(listed) == 4
        assert listed == index.images(limit=5)[1:]
        with pytest.raises(diptych.SettingsError, match="expected at least 1"):
            index.images(limit=0)
    assert loads == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("photos/7.png", r"is an image file; expected words; give pathlib.Path\('photos/7.png'\)"),
        ("photos/99.png", "no such image file"),
        ("https://example.org/a", "is an address, and Diptych does not download images"),
    ],
)
def test_a_string_is_words_and_never_a_path(
    here: Path, words: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    with diptych.open_index("photos.index", device="cpu") as index:
        with pytest.raises(diptych.SettingsError, match=said):
            index.search(words)
        assert len(index.search(diptych.QueryPart(text=words))) == 10


def test_another_model_is_refused_when_it_is_loaded(here: Path, tmp_path: Path) -> None:
    other = random_clip()
    with torch.no_grad():
        other.logit_scale.add_(1)
    diptych.save(other, preprocessing(), tmp_path / "other")
    with (
        diptych.open_index(here / "photos.index", model=tmp_path / "other", device="cpu") as index,
        pytest.raises(diptych.SearchIndexError, match="was filled by the model"),
    ):
        index.search("a bird")


def test_a_model_that_has_moved_is_given(here: Path, tmp_path: Path) -> None:
    diptych.save(random_clip(), preprocessing(), tmp_path / "before")
    diptych.build_index(here / "photos", tmp_path / "index", model=tmp_path / "before", device="cpu")
    (tmp_path / "before").rename(tmp_path / "after")
    with (
        diptych.open_index(tmp_path / "index", device="cpu") as index,
        pytest.raises(diptych.CheckpointError, match="open the index with model= its new place"),
    ):
        index.search("a bird")
    with diptych.open_index(tmp_path / "index", model=tmp_path / "after", device="cpu") as index:
        assert len(index.search("a bird")) == 10


def test_no_index_is_an_error_that_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(diptych.SearchIndexError, match="no index here; build one"):
        diptych.open_index(tmp_path / "nothing")


def test_only_what_is_new_is_embedded_and_what_is_gone_is_removed(here: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes((here / "photos" / f"{number}.png").read_bytes())
    options = {"model": here / "tiny", "device": "cpu"}
    counted: list[int] = []
    diptych.build_index(folder, tmp_path / "index", progress=counted.append, **options)  # type: ignore[arg-type]
    assert sum(counted) == 3
    (folder / "0.png").unlink()
    (folder / "3.png").write_bytes((here / "photos" / "3.png").read_bytes())
    again = diptych.build_index(diptych.open_source(folder), tmp_path / "index", **options)  # type: ignore[arg-type]
    assert (again.added, again.unchanged, again.removed, again.total) == (1, 2, 1, 3)


def test_a_source_without_a_readable_image_leaves_no_index(here: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.png").write_bytes(b"no image")
    with pytest.raises(diptych.DataError, match="none of 1 images could be read"):
        diptych.build_index(tmp_path / "bad", tmp_path / "index", model=here / "tiny", device="cpu")
    assert not (tmp_path / "index").exists()
