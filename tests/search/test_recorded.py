"""An index filled with embeddings that were made elsewhere."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import open_source
from diptych.embed.embedding_files import about, part_of, write_embeddings
from diptych.embed.source_rows import embed_source
from diptych.errors import DataError, SearchIndexError
from diptych.models.image_model import ImageModel
from diptych.pretrained import fingerprint
from diptych.search.building.build import refresh
from diptych.search.building.recorded import NOT_RECORDED, RecordedEmbeddings
from diptych.search.encoder import Encoder
from diptych.search.image_index import Index
from tests.memory_store import MemoryDatabase


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    dice = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(9):
        picture = Image.fromarray(dice.integers(0, 256, (20, 30, 3), np.uint8))
        picture.save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "4.png").write_bytes(b"no picture")
    return tmp_path / "photos"


@pytest.fixture
def recorded(photos: Path, tmp_path: Path, tiny_clip: ImageModel, tiny_preprocess: Preprocess) -> Path:
    source, file = open_source(photos), tmp_path / "x.parquet"
    batches = embed_source(tiny_clip, tiny_preprocess, source, hashes=True)
    said = about("tiny", fingerprint(tiny_clip, tiny_preprocess), source)
    write_embeddings(file, map(part_of, batches), about=said)
    return file


def rows(database: MemoryDatabase) -> dict[str, tuple[object, bytes, bytes | None]]:
    index = Index(database)
    ids = [item.id for item in index.items()]
    found = index.get(ids)
    pairs = zip(found.items, found.vectors, strict=True)
    return {item.uri: (item, vector.tobytes(), index.thumbnail(item.id)) for item, vector in pairs}


@pytest.mark.parametrize("thumbnails", [True, False])
def test_the_index_is_the_one_that_the_model_would_have_filled(
    photos: Path, recorded: Path, tiny_clip: ImageModel, tiny_preprocess: Preprocess, thumbnails: bool
) -> None:
    by_model, by_file = MemoryDatabase(), MemoryDatabase()
    encoder = Encoder(tiny_clip, tiny_preprocess, "tiny")
    refresh(by_model, open_source(photos), encoder, thumbnails=thumbnails)
    done = refresh(by_file, open_source(photos), RecordedEmbeddings(recorded), thumbnails=thumbnails)
    assert (done.added, len(done.skipped)) == (8, 1)
    assert rows(by_file) == rows(by_model)
    again = refresh(by_file, open_source(photos), encoder, thumbnails=thumbnails)
    assert (again.unchanged, again.added) == (8, 0)


def test_pictures_may_lie_elsewhere(photos: Path, recorded: Path, tmp_path: Path) -> None:
    shutil.move(photos, tmp_path / "moved")
    done = refresh(MemoryDatabase(), open_source(tmp_path / "moved"), RecordedEmbeddings(recorded))
    assert done.added == 8


def test_a_picture_that_has_changed_since_is_left_to_the_model(
    photos: Path, recorded: Path, tiny_clip: ImageModel, tiny_preprocess: Preprocess
) -> None:
    Image.new("RGB", (30, 20), "red").save(photos / "2.png")
    database = MemoryDatabase()
    done = refresh(database, open_source(photos), RecordedEmbeddings(recorded))
    assert done.added == 7
    assert [row.reason for row in done.skipped if row.uri.endswith("2.png")] == [NOT_RECORDED]
    later = refresh(database, open_source(photos), Encoder(tiny_clip, tiny_preprocess, "tiny"))
    assert (later.added, later.unchanged) == (1, 7)


def test_a_file_of_another_model_is_refused(
    photos: Path, recorded: Path, tmp_path: Path, tiny_clip: ImageModel
) -> None:
    database = MemoryDatabase()
    refresh(database, open_source(photos), Encoder(tiny_clip, Preprocess(16, resize="squash"), "other"))
    with pytest.raises(SearchIndexError, match="was filled by the model 'other'"):
        refresh(database, open_source(photos), RecordedEmbeddings(recorded))


def test_a_file_without_hashes_or_without_its_model_is_refused(recorded: Path, tmp_path: Path) -> None:
    table = pq.read_table(recorded)
    pq.write_table(table.drop_columns("sha256"), tmp_path / "old.parquet")
    with pytest.raises(DataError, match="lacks the sha256"):
        RecordedEmbeddings(tmp_path / "old.parquet")
    pq.write_table(table.replace_schema_metadata({b"diptych": b'{"model": "x"}'}), tmp_path / "old.parquet")
    with pytest.raises(DataError, match="lacks the fingerprint"):
        RecordedEmbeddings(tmp_path / "old.parquet")
