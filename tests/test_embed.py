"""Embeddings: order, unit length, precision, and what becomes of what cannot be read."""

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import diptych
from diptych.data.images.decoding import read_rgb
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source, open_source
from diptych.embed.embedding_files import part_of, write_embeddings
from diptych.embed.encode import embed_images, embed_texts
from diptych.embed.source_rows import count_reasons, embed_source, uri_of
from diptych.errors import CheckpointError, DataError, ImageError, SettingsError, TextError
from diptych.models.image_model import ImageModel
from diptych.models.text_transformer import TextTransformer
from tests.tiny_model import preprocessing, random_clip


@pytest.fixture(scope="module")
def tiny_clip() -> ImageModel:
    return random_clip()


@pytest.fixture(scope="module")
def tiny_preprocess() -> Preprocess:
    return preprocessing()


def drawings(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / f"{number:03}.png"
        Image.fromarray(generator.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
        path.with_suffix(".txt").write_text(f"drawing {number}")
        paths.append(path)
    return paths


@pytest.fixture
def photos(tmp_path: Path) -> Source:
    """Ten drawings, one of which is cut short and one empty."""
    paths = drawings(tmp_path / "photos", 10)
    paths[3].write_bytes(paths[3].read_bytes()[:200])
    paths[7].write_bytes(b"")
    return open_source(tmp_path / "photos")


def one_by_one(model: ImageModel, preprocess: Preprocess, paths: list[Path]) -> np.ndarray:
    with torch.inference_mode():
        rows = [model.encode_image(preprocess(Image.open(path))[None])[0] for path in paths]
    return torch.stack([row / row.norm() for row in rows]).numpy()


def test_image_embeddings_equal_the_model_called_one_by_one(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tmp_path: Path
) -> None:
    paths = drawings(tmp_path, 11)
    vectors = embed_images(tiny_clip, tiny_preprocess, paths, batch_size=4)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, one_by_one(tiny_clip, tiny_preprocess, paths), atol=1e-6)


def test_paths_bytes_and_pictures_embed_alike(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tmp_path: Path
) -> None:
    (path,) = drawings(tmp_path, 1)
    forms: list[str | Path | bytes | Image.Image] = [path, str(path), path.read_bytes(), Image.open(path)]
    vectors = embed_images(tiny_clip, tiny_preprocess, forms)
    np.testing.assert_allclose(vectors, np.repeat(vectors[:1], 4, axis=0), atol=1e-6)


def test_text_embeddings_keep_their_order_whatever_their_lengths(tiny_clip: ImageModel) -> None:
    texts = ["a " * (1 + number * 7 % 13) + str(number) for number in range(23)]
    vectors = embed_texts(tiny_clip, texts, batch_size=5)
    with torch.inference_mode():
        alone = torch.cat([tiny_clip.encode_text(diptych.tokenize(text)) for text in texts])
    expected = (alone / alone.norm(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_embeddings_have_unit_length(tiny_clip: ImageModel) -> None:
    vectors = embed_texts(tiny_clip, ["a cat", "two dogs on a hill", ""])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_nothing_to_embed_gives_no_rows(tiny_clip: ImageModel, tiny_preprocess: Preprocess) -> None:
    assert embed_images(tiny_clip, tiny_preprocess, []).shape == (0, 24)
    assert embed_texts(tiny_clip, []).shape == (0, 24)


def test_one_text_or_one_image_in_place_of_a_list_gives_one_row(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tmp_path: Path
) -> None:
    assert np.array_equal(embed_texts(tiny_clip, "a cat"), embed_texts(tiny_clip, ["a cat"]))
    (path,) = drawings(tmp_path, 1)
    expected = embed_images(tiny_clip, tiny_preprocess, [path])
    for one in (path, str(path), path.read_bytes(), Image.open(path), read_rgb(path), [read_rgb(path)]):
        assert np.array_equal(embed_images(tiny_clip, tiny_preprocess, one), expected)


def test_images_that_cannot_be_read_have_no_row_where_somebody_is_told(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tmp_path: Path
) -> None:
    paths = drawings(tmp_path, 5)
    paths[1].write_bytes(b"")
    paths[4].write_bytes(b"no image")
    told: dict[int, ImageError] = {}
    vectors = embed_images(tiny_clip, tiny_preprocess, paths, batch_size=2, unreadable=told.__setitem__)
    good = [paths[position] for position in (0, 2, 3)]
    np.testing.assert_allclose(vectors, one_by_one(tiny_clip, tiny_preprocess, good), atol=1e-6)
    assert list(told) == [1, 4]
    assert "4.png: not an image" in str(told[4])


def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(tiny_clip: ImageModel) -> None:
    with pytest.raises(TextError):
        embed_texts(tiny_clip, ["short", "long " * 100])
    assert embed_texts(tiny_clip, ["short", "long " * 100], truncate=True).shape == (2, 24)


def test_half_precision_models_give_float32_close_to_the_full_one(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tmp_path: Path
) -> None:
    paths = drawings(tmp_path, 3)
    half = diptych.models.building.build_model(tiny_clip.architecture).eval()
    half.load_state_dict(tiny_clip.state_dict())
    half.to(torch.bfloat16)
    vectors = embed_images(half, tiny_preprocess, paths)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, one_by_one(tiny_clip, tiny_preprocess, paths), atol=0.05)


def test_a_model_in_training_is_used_without_dropout_and_left_in_training(tiny_clip: ImageModel) -> None:
    model = diptych.models.building.build_model(tiny_clip.architecture).train()
    seen = []
    handle = model.text.register_forward_hook(lambda *_: seen.append(model.training))
    embed_texts(model, ["a cat"])
    handle.remove()
    assert seen == [False]
    assert model.training


def test_values_that_are_not_finite_are_an_error_and_no_embedding(tiny_clip: ImageModel) -> None:
    broken = diptych.models.building.build_model(tiny_clip.architecture).eval()
    assert isinstance(broken.text, TextTransformer)
    assert isinstance(broken.text.text_projection, torch.nn.Parameter)
    with torch.no_grad():
        broken.text.text_projection.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not finite in float32"):
        embed_texts(broken, ["a cat"])


def test_an_image_that_cannot_be_read_is_an_error_that_names_it(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=r"absent\.png"):
        embed_images(tiny_clip, tiny_preprocess, [tmp_path / "absent.png"])


def test_images_of_a_source_are_embedded_or_listed_as_skipped(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Source, tmp_path: Path
) -> None:
    batches = list(embed_source(tiny_clip, tiny_preprocess, photos, batch_size=3))
    kept = [position for batch in batches for position in batch.positions]
    skipped = [row for batch in batches for row in batch.skipped]
    assert kept == [0, 1, 2, 4, 5, 6, 8, 9]
    assert [row.position for row in skipped] == [3, 7]
    assert all(Path(row.uri).name in row.detail for row in skipped)
    alone = one_by_one(
        tiny_clip, tiny_preprocess, [tmp_path / "photos" / f"{position:03}.png" for position in kept]
    )
    np.testing.assert_allclose(np.concatenate([batch.vectors for batch in batches]), alone, atol=1e-6)


def test_skipped_rows_are_counted_by_reason(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Source, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("image,caption\n" + "\n".join(f"photos/{n:03}.png,drawing {n}" for n in range(12)))
    batches = embed_source(tiny_clip, tiny_preprocess, open_source(table))
    skipped = [row for batch in batches for row in batch.skipped]
    assert count_reasons(skipped) == {"truncated image": 1, "empty image": 1, "missing image": 2}


def test_a_batch_without_a_readable_image_has_no_rows(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Source
) -> None:
    (batch,) = embed_source(tiny_clip, tiny_preprocess, photos, positions=[7])
    assert batch.vectors.shape == (0, 24)
    assert len(batch.skipped) == 1


def test_images_are_decoded_outside_the_thread_that_computes(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Source
) -> None:
    threads = set()

    def watched(image: object) -> torch.Tensor:
        threads.add(threading.current_thread())
        return tiny_preprocess(image)  # type: ignore[arg-type]

    list(embed_source(tiny_clip, watched, photos))
    assert threads
    assert threading.main_thread() not in threads


def test_an_image_inside_something_else_has_the_container_and_the_key_for_uri() -> None:
    sample = open_source("sample:test")
    assert uri_of(sample, sample[0]) == f"sample:test#{sample[0].key}"


def test_npy_files_have_their_rows_beside_them(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Source, tmp_path: Path
) -> None:
    out = tmp_path / "out.npy"
    done: list[int] = []
    written = write_embeddings(
        out,
        map(part_of, embed_source(tiny_clip, tiny_preprocess, photos, batch_size=3)),
        progress=done.append,
    )
    vectors = np.load(out, allow_pickle=False)
    rows = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert (written.count, written.dim) == vectors.shape == (8, 24)
    assert sum(done) == len(photos) == written.count + sum(written.skipped.values())
    assert [row["caption"] for row in rows] == [f"drawing {number}" for number in (0, 1, 2, 4, 5, 6, 8, 9)]
    paths = [Path(row["uri"]) for row in rows]
    np.testing.assert_allclose(vectors, one_by_one(tiny_clip, tiny_preprocess, paths), atol=1e-6)


def test_parquet_holds_the_same_vectors_as_npy(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Source, tmp_path: Path
) -> None:
    for name in ("out.npy", "out.parquet"):
        write_embeddings(
            tmp_path / name,
            map(part_of, embed_source(tiny_clip, tiny_preprocess, photos, batch_size=3, hashes=True)),
            about={"model": "tiny"},
        )
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["uri", "key", "caption", "label", "sha256", "vector"]
    assert json.loads(table.schema.metadata[b"diptych"]) == {"model": "tiny"}
    for uri, sha256 in zip(table["uri"].to_pylist(), table["sha256"].to_pylist(), strict=True):
        assert hashlib.sha256(Path(uri).read_bytes()).hexdigest() == sha256
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    np.testing.assert_array_equal(vectors, np.load(tmp_path / "out.npy"))


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_nothing_is_written_when_embedding_fails_half_way(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Source, tmp_path: Path, suffix: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    def failing() -> object:
        yield part_of(next(embed_source(tiny_clip, tiny_preprocess, photos, batch_size=2)))
        raise CheckpointError("half way")

    with pytest.raises(CheckpointError, match="half way"):
        write_embeddings(folder / f"out{suffix}", failing())  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_source_without_a_readable_image_is_an_error_and_no_file(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Source, tmp_path: Path, suffix: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    unreadable = map(part_of, embed_source(tiny_clip, tiny_preprocess, photos, positions=[3, 7]))
    with pytest.raises(DataError, match=r"none of 2 images could be read; the first error: .*003\.png"):
        write_embeddings(folder / f"out{suffix}", unreadable)
    assert list(folder.iterdir()) == []


def test_an_unknown_kind_of_file_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"ends in .parquet or .npy"):
        write_embeddings(tmp_path / "out.csv", [])
    with pytest.raises(SettingsError, match="does not exist"):
        write_embeddings(tmp_path / "absent" / "out.npy", [])


def test_previews_note_the_size_in_the_file_of_an_image_that_is_read_reduced(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.effect_noise((600, 400), 90).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (60, 40)).save(tmp_path / "b.png")
    monkeypatch.setenv("DIPTYCH_MAX_PIXELS", "60000")
    (batch,) = embed_source(tiny_clip, tiny_preprocess, open_source(tmp_path), previews=True)
    assert [(one.width, one.height) for one in batch.previews] == [(400, 600), (60, 40)]
