"""A table with a row for each caption gives the figures of a table with the captions of an image in one row."""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

import diptych
from diptych.data import Example, Source, open_source
from diptych.data.images.transforms import Preprocess
from diptych.evaluation import retrieval
from diptych.evaluation.comparison import compare
from diptych.evaluation.metrics import wilson
from diptych.evaluation.probes.linear_probe import evaluate_linear_probe
from diptych.evaluation.probes.probe_data import labelled_features
from diptych.evaluation.retrieval import evaluate_retrieval
from diptych.evaluation.survey import EmbeddedRows
from diptych.evaluation.task_report import Report
from diptych.evaluation.word_order import evaluate_word_order
from diptych.evaluation.zero_shot.calibration import calibrate
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot
from diptych.evaluation.zero_shot.multi_label import evaluate_multi_label
from diptych.models.image_model import ImageModel

DRAWINGS = 90
Rows = Sequence[tuple[Path, tuple[str, ...]]]


pytestmark = pytest.mark.usefixtures("user_cache")


@pytest.fixture(scope="module")
def model() -> tuple[ImageModel, Preprocess]:
    return diptych.load("diptych-mini", device="cpu")


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, tuple[str, ...]]]:
    """Bundled drawings with three captions each, as files."""
    folder = tmp_path_factory.mktemp("drawings")
    source = open_source("sample:test")
    found: list[tuple[Path, tuple[str, ...]]] = []
    for position in range(DRAWINGS):
        example = source[position]
        path = folder / f"{position}.webp"
        path.write_bytes(example.image if isinstance(example.image, bytes) else example.image.read_bytes())
        name = example.captions[0]
        found.append((path, (name, f"a drawing of {name}", f"{name}, number {position}")))
    return found


def as_csv(rows: Rows, folder: Path) -> Source:
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "caption"))
        writer.writerows((path, caption) for path, captions in rows for caption in captions)
    return open_source(folder / "t.csv")


def as_copies(rows: Rows, folder: Path) -> Source:
    """One file a caption."""
    for number, (path, captions) in enumerate(rows):
        for place, caption in enumerate(captions):
            copy = folder / "copies" / f"{place}-{number:03}.webp"
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
            copy.with_suffix(".txt").write_text(caption)
    return open_source(folder / "copies")


def as_jsonl(rows: Rows, folder: Path) -> Source:
    lines = [
        {"image": str(path), "caption": caption}
        for place in range(3)
        for path, captions in rows
        for caption in captions[place : place + 1]
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return open_source(folder / "t.jsonl")


def as_parquet(rows: Rows, folder: Path) -> Source:
    cells = [
        {"image": {"bytes": path.read_bytes(), "path": f"{number}.webp"}, "caption": caption}
        for path, captions in rows
        for number, caption in enumerate(captions)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(cells), folder / "t.parquet", row_group_size=50)
    return open_source(folder / "t.parquet")


def as_shard(rows: Rows, folder: Path) -> Source:
    with tarfile.open(folder / "t.tar", "w") as archive:
        for path, captions in rows:
            for place, caption in enumerate(captions):
                for suffix, data in (("webp", path.read_bytes()), ("txt", caption.encode())):
                    header = tarfile.TarInfo(f"{path.stem}-{place}.{suffix}")
                    header.size = len(data)
                    archive.addfile(header, io.BytesIO(data))
    return open_source(folder / "t.tar")


def lists_of_captions(rows: Rows, folder: Path) -> Source:
    lines = [{"image": str(path), "captions": captions} for path, captions in rows]
    (folder / "lists.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return open_source(folder / "lists.jsonl")


@pytest.mark.parametrize("form", [as_csv, as_copies, as_jsonl, as_parquet, as_shard])
def test_one_row_a_caption_gives_the_figures_of_lists(
    form: Callable[[Rows, Path], Source],
    model: tuple[ImageModel, Preprocess],
    captioned: Rows,
    tmp_path: Path,
) -> None:
    rows = captioned if form is as_csv else captioned[:30]
    expected = evaluate_retrieval(*model, lists_of_captions(rows, tmp_path), model_name="mini")
    report = evaluate_retrieval(*model, form(rows, tmp_path), model_name="mini")
    assert report.scores.count == expected.scores.count == len(rows)
    assert report.scores.metrics == pytest.approx(expected.scores.metrics)
    assert report.scores.confidence == {
        name: pytest.approx(interval) for name, interval in expected.scores.confidence.items()
    }
    assert report.scores.chance == pytest.approx(expected.scores.chance)
    assert (expected.remarks, report.remarks) == ((), (f"{3 * len(rows)} rows show {len(rows)} images",))
    if form is as_csv:
        assert report.scores.metrics["text_to_image_r1"] > 0.6  # rows as images gave a third of it


def test_a_report_shows_its_remarks(
    model: tuple[ImageModel, Preprocess], captioned: Rows, tmp_path: Path
) -> None:
    report = evaluate_retrieval(*model, as_csv(captioned[:5], tmp_path), model_name="mini")
    assert report.to_json()["remarks"] == ["15 rows show 5 images"]
    assert report.table().caption == "15 rows show 5 images"


def test_captions_in_any_row_of_an_image_count(
    model: tuple[ImageModel, Preprocess], captioned: Rows, tmp_path: Path
) -> None:
    (one, _), (other, _) = captioned[:2]
    lines = [
        {"image": str(one), "caption": ""},
        {"image": str(other), "caption": "a thing"},
        {"image": str(one), "caption": "another"},
        {"image": str(one), "caption": "another"},
        {"image": str(captioned[2][0])},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = evaluate_retrieval(*model, open_source(tmp_path / "t.jsonl"), model_name="mini")
    assert report.scores.count == 2
    assert report.skipped == {"no caption": 1}
    assert report.outcomes is not None
    assert report.outcomes.positions == (0, 1)


class _Features:
    """Rows whose image is its feature vector: equal for rows of one image."""

    name = fingerprint = "features"

    def __init__(self, images: np.ndarray, captions: Sequence[str]) -> None:
        self._images, self._captions = images, captions

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int, /) -> Example:
        return Example(str(position), self._images[position].tobytes(), (self._captions[position],))

    def describe(self) -> str:
        return self.name


@pytest.mark.photos
def test_published_features_give_the_published_figures(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(photos / "openai-vit-b-32-features.npz") as found:
        images, texts = found["flickr_image_features"], found["flickr_text_features"]
        captions = [str(caption) for caption in found["flickr_captions"]]
    vector = dict(zip(captions, texts, strict=True))

    def embed_texts(model: object, words: Sequence[str], **_: Any) -> np.ndarray:
        return np.stack([vector[text] for text in words])

    def embed_rows(
        model: object, preprocess: object, source: Source, positions: Iterable[int], **_: Any
    ) -> EmbeddedRows:
        rows = list(positions)
        return EmbeddedRows(images[rows], rows, [])

    monkeypatch.setattr(retrieval, "embed_texts", embed_texts)
    monkeypatch.setattr(retrieval, "embed_rows", embed_rows)
    report: Report = evaluate_retrieval(None, None, _Features(images, captions), model_name="ViT-B/32")  # type: ignore[arg-type]
    metrics = report.scores.metrics
    assert report.remarks == ("500 rows show 100 images",)
    assert [metrics[f"text_to_image_r{k}"] for k in (1, 5, 10)] == pytest.approx([0.832, 0.990, 0.998])
    assert [metrics[f"image_to_text_r{k}"] for k in (1, 5, 10)] == pytest.approx([0.93, 1, 1])
    low, high = report.scores.confidence["image_to_text_r1"]
    assert high - low > 0.08  # of 100 images, not of 500 rows


# --- Labels -----------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(tiny_images: list[Path]) -> list[tuple[str, str]]:
    """Rows of an image and its label; a has three of them, b two."""
    a, b, c, d = map(str, tiny_images)
    return [(a, "cat"), (b, "dog"), (a, "cat"), (c, "cat"), (a, "cat"), (b, "dog"), (d, "dog")]


@pytest.fixture
def tiny_images(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)).save(path)
        paths.append(path)
    return paths


def label_table(folder: Path, rows: Iterable[tuple[str, str]], name: str = "labels.csv") -> Source:
    (folder / name).write_text("\n".join(map(",".join, [("image", "label"), *rows])))
    return open_source(folder / name)


def test_labels_of_repeated_images_count_once(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, labelled: list[tuple[str, str]], tmp_path: Path
) -> None:
    repeated = label_table(tmp_path, labelled)
    once = label_table(tmp_path, dict.fromkeys(labelled), "once.csv")
    found, expected = (
        evaluate_zero_shot(tiny_clip, tiny_preprocess, source, model_name="tiny")
        for source in (repeated, once)
    )
    assert found.scores == expected.scores
    assert found.scores.count == 4
    assert (found.remarks, expected.remarks) == (("7 rows show 4 images",), ())
    features = [labelled_features(tiny_clip, tiny_preprocess, source) for source in (repeated, once)]
    assert len(features[0]) == 4
    reports = [evaluate_linear_probe(part, part, part, model_name="tiny") for part in features]
    assert reports[0].scores == reports[1].scores
    assert reports[0].remarks == (
        "7 rows show 4 images",
        f"{repeated.name}: 7 rows show 4 images",
        "4 of 4 test images were trained on",
    )
    fitted = [
        calibrate(tiny_clip, tiny_preprocess, source, model_name="tiny", none_of_these=source)
        for source in (repeated, once)
    ]
    assert fitted[0] == fitted[1]


def test_one_image_with_two_labels_is_reported_and_counts_for_both(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, labelled: list[tuple[str, str]], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(labelled[0][0]).read_bytes())
    report = evaluate_zero_shot(
        tiny_clip, tiny_preprocess, label_table(tmp_path, [*labelled, (str(copy), "dog")]), model_name="tiny"
    )
    assert report.scores.count == 5
    assert report.remarks == (
        "8 rows show 4 images",
        f"1 image has different labels in different rows, such as {labelled[0][0]!r}: 'cat' and 'dog'; "
        "each label counts",
    )


def test_an_image_has_the_labels_of_all_its_rows(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tiny_images: list[Path], tmp_path: Path
) -> None:
    def table(name: str, rows: Sequence[tuple[Path, str]]) -> Source:
        (tmp_path / name).write_text(
            "\n".join(json.dumps({"image": str(path), "labels": labels}) for path, labels in rows)
        )
        return open_source(tmp_path / name)

    a, b, c, _ = tiny_images
    apart = table("apart.jsonl", [(a, "dog"), (b, "dog"), (a, "person"), (c, "person")])
    joined = table("joined.jsonl", [(a, "dog, person"), (b, "dog"), (c, "person")])
    reports = [
        evaluate_multi_label(tiny_clip, tiny_preprocess, source, model_name="tiny")
        for source in (apart, joined)
    ]
    assert reports[0].scores == reports[1].scores
    assert reports[0].remarks == ("4 rows show 3 images",)


def test_intervals_of_word_order_count_images(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tiny_images: list[Path], tmp_path: Path
) -> None:
    rows = [
        {
            "image": str(path),
            "caption": f"{number} on {other}",
            "foil": f"{other} on {number}",
            "exchange": "all",
        }
        for number, path in enumerate(tiny_images)
        for other in range(10, 15)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = evaluate_word_order(
        tiny_clip, tiny_preprocess, open_source(tmp_path / "t.jsonl"), model_name="tiny"
    )
    assert report.scores.count == 20
    assert report.scores.confidence["accuracy"] == wilson(report.scores.metrics["accuracy"], 4)
    assert report.groups["all"].confidence == report.scores.confidence
    assert report.remarks == ("20 rows show 4 images",)


def test_after_one_row_was_removed_the_rest_is_still_compared(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tiny_images: list[Path], tmp_path: Path
) -> None:
    rows = [(path.name, label) for path, label in zip(tiny_images, ("cat", "dog", "dog", "cat"), strict=True)]
    cells = [
        {"image": {"bytes": path.read_bytes(), "path": "x.png"}, "label": label}
        for path, (_, label) in zip(tiny_images, rows, strict=True)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(cells), tmp_path / "whole.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(cells[1:]), tmp_path / "cut.parquet")
    sources = [
        (label_table(tmp_path, rows, "whole.csv"), label_table(tmp_path, rows[1:], "cut.csv")),
        (open_source(tmp_path / "whole.parquet"), open_source(tmp_path / "cut.parquet")),
    ]
    for pair in sources:
        whole, cut = (
            evaluate_zero_shot(tiny_clip, tiny_preprocess, source, model_name="tiny") for source in pair
        )
        found = compare("task", whole, cut)
        assert (found.count, found.only_first, found.only_second, found.changes) == (3, 1, 0, ())
