import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from diptych.data import Example, open_source
from diptych.data.sources.row_keys import content_key
from diptych.errors import DataError, SettingsError
from tests.data.tar_files import png

IMAGES = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def save(
    folder: Path, columns: dict[str, Any], ends: Sequence[int], features: dict[str, Any] | None = None
) -> Path:
    """A folder as `save_to_disk` of datasets 5 writes it: Arrow streams of a few batches, and two JSON files."""
    folder.mkdir(parents=True)
    table = pyarrow.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    names = [f"data-{number:05}-of-{len(ends):05}.arrow" for number in range(len(ends))]
    for name, start, stop in zip(names, [0, *ends], ends, strict=False):
        with pyarrow.ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(table.slice(start, stop - start), max_chunksize=2)
    state: dict[str, object] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0123456789abcdef",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features or {}}))
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    images = [{"bytes": png(row), "path": f"{row}.png"} for row in range(7)]
    columns = {
        "image": pyarrow.array(images, IMAGES),
        "caption": [f"caption {row}" for row in range(7)],
        "label": [row % 2 for row in range(7)],
        "source": ["web"] * 7,
    }
    names = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    return save(tmp_path / "set", columns, [5, 7], names)


def read_all(folder: Path) -> list[Example]:
    source = open_source(folder)
    return [source[position] for position in range(len(source))]


def test_every_row_of_every_file_is_an_example(saved: Path) -> None:
    assert read_all(saved) == [
        Example(
            key=content_key(png(row)),
            image=png(row),
            captions=(f"caption {row}",),
            label=("cat", "dog")[row % 2],
            metadata={"source": "web"},
        )
        for row in range(7)
    ]


def test_files_are_parts_and_columns_can_be_chosen(saved: Path) -> None:
    source = open_source(saved, caption_column="source")
    assert getattr(source, "parts", None) == (5, 2)
    assert source[3].captions == ("web",)
    assert "7 rows of a saved dataset in 2 files" in source.describe()
    for position in (-1, 7):
        with pytest.raises(IndexError):
            source[position]


def test_a_saved_dataset_travels_to_another_process(saved: Path) -> None:
    source = open_source(saved)
    copy = pickle.loads(pickle.dumps(source))
    assert [copy[row] for row in (6, 0)] == [source[row] for row in (6, 0)]
    assert copy.fingerprint == source.fingerprint


def test_images_may_be_paths_beside_the_files(tmp_path: Path) -> None:
    images = [{"bytes": None, "path": "a.png"}, {"bytes": None, "path": "b.png"}]
    folder = save(tmp_path / "set", {"image": pyarrow.array(images, IMAGES), "text": ["a", "b"]}, [2])
    (folder / "a.png").write_bytes(png())
    source = open_source(folder)
    assert source[0].image == folder / "a.png"
    with pytest.raises(DataError, match="row 2: no such image"):
        source[1]


def test_of_several_splits_one_must_be_named(saved: Path, tmp_path: Path) -> None:
    several = tmp_path / "several"
    several.mkdir()
    saved.rename(several / "train")
    (several / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"holds the splits \['train', 'test'\]; name one of them"):
        open_source(several)
    assert len(read_all(several / "train")) == 7
    (several / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert len(read_all(several)) == 7


def test_the_fingerprint_follows_the_content(saved: Path) -> None:
    before = open_source(saved).fingerprint
    assert open_source(saved).fingerprint == before
    state = json.loads((saved / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps(state | {"_fingerprint": "another"}))
    assert open_source(saved).fingerprint != before


def test_an_image_named_state_does_not_make_a_saved_dataset(tmp_path: Path) -> None:
    (tmp_path / "state.png").write_bytes(png())
    (tmp_path / "state.json").write_text('{"caption": "the state"}')
    assert read_all(tmp_path)[0].captions == ("the state",)


def test_what_is_not_whole_is_an_error(saved: Path) -> None:
    state = (saved / "state.json").read_text()
    file = saved / "data-00001-of-00002.arrow"
    data = file.read_bytes()
    file.write_bytes(data[:100])
    with pytest.raises(DataError, match=r"data-00001-of-00002\.arrow: cannot be read as an Arrow stream"):
        open_source(saved)
    file.unlink()
    with pytest.raises(DataError, match="cannot be read as an Arrow stream"):
        open_source(saved)
    for text, message in [
        ("{", "cannot be read"),
        ("[]", "is a JSON list; expected an object"),
        ("{}", "expected a list '_data_files'"),
        (json.dumps(json.loads(state) | {"_indices_data_files": [{"filename": "x"}]}), "flatten_indices"),
    ]:
        (saved / "state.json").write_text(text)
        with pytest.raises(DataError, match=message):
            open_source(saved)


def test_a_saved_dataset_without_rows_or_images_is_an_error(tmp_path: Path) -> None:
    empty = save(tmp_path / "empty", {"image": pyarrow.array([], IMAGES)}, [0])
    with pytest.raises(DataError, match="no rows"):
        open_source(empty)
    wrong = save(tmp_path / "wrong", {"image": [1.5]}, [1])
    with pytest.raises(DataError, match="has the type double"):
        open_source(wrong)
    with pytest.raises(SettingsError, match="have a delimiter"):
        open_source(wrong, delimiter=",")
