"""Finding a dataset in any of its forms, what belongs to it, and what is said where it is not there."""

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from diptych.cli.__main__ import main
from diptych.config import build
from diptych.data.images.decoding import read_rgb
from diptych.data.images.transforms import Preprocess
from diptych.errors import DataError, DiptychError, SettingsError
from diptych.evaluation.datasets.benchmark import (
    benchmark_from,
    default_root,
    open_benchmark,
)
from diptych.evaluation.datasets.dataset import Dataset, Group, all_datasets
from diptych.evaluation.datasets.finding import find_benchmark
from diptych.evaluation.datasets.set_files import set_values
from diptych.evaluation.robustness.natural_shift import SHIFTS, class_map
from diptych.evaluation.tasks import Headline
from diptych.evaluation.zero_shot.classification import evaluate_zero_shot
from diptych.evaluation.zero_shot.prompts import TEMPLATES
from diptych.models.image_model import ImageModel
from tests.evaluation.datasets import published_layouts as layouts


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(layouts.picture(number)).save(file, "PNG")
    return file.getvalue()


def shards(folder: Path, split: str, labels: list[list[str]], suffix: str = "cls") -> None:
    """A split as CLIP_benchmark's exporter writes it: one list of labels a shard."""
    (folder / split).mkdir(parents=True)
    number = 0
    for shard, part in enumerate(labels):
        with tarfile.open(folder / split / f"{shard}.tar", "w") as archive:
            for label in part:
                for name, data in (
                    (f"s{number:07d}.png", png(number)),
                    (f"s{number:07d}.{suffix}", label.encode()),
                ):
                    header = tarfile.TarInfo(name)
                    header.size = len(data)
                    archive.addfile(header, io.BytesIO(data))
                number += 1
    (folder / split / "nshards.txt").write_text(f"{len(labels)}\n")


def saved(folder: Path, labels: list[int], names: list[str], column: str = "label") -> None:
    """A folder as `save_to_disk` writes it."""
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    table = table_of(labels, names, column)
    with pyarrow.ipc.new_stream(folder / "data.arrow", table.schema) as writer:
        writer.write_table(table)


def table_of(labels: list[int], names: list[str], column: str = "label") -> pyarrow.Table:
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": png(row), "path": None} for row in range(len(labels))], kind)
    features = {column: {"names": names, "_type": "ClassLabel"}}
    table = pyarrow.table({"image": images, column: labels})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def labels_of(name: str, root: Path, split: str | None = None) -> list[str | None]:
    source = open_benchmark(name, root, split).source
    return [source[position].label for position in range(len(source))]


def test_shards_bring_their_own_classes_and_templates(tmp_path: Path) -> None:
    folder = tmp_path / "wds_vtab-eurosat"
    shards(folder, "test", [["1", "0"], ["1"]])
    (folder / "classnames.txt").write_text("annual crop land\nforest\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a satellite photo of {c}.\n")
    found = open_benchmark("eurosat", tmp_path, "all")
    assert labels_of("eurosat", tmp_path, "all") == ["1", "0", "1"]
    assert found.labels is not None
    assert found.labels.names == ("0", "1")
    assert found.labels.phrases == (("annual crop land",), ("forest",))
    assert found.templates == ("a satellite photo of {}.",)
    assert read_rgb(found.source[2].image).tobytes() == layouts.picture(2).tobytes()


def test_shards_of_the_split_that_the_paper_tests_on_are_called_test(tmp_path: Path) -> None:
    folder = tmp_path / "wds_imagenet1k"
    shards(folder, "test", [["0"]])
    (folder / "classnames.txt").write_text("tench\n")
    found = open_benchmark("imagenet", tmp_path)
    assert (found.split, len(found.source)) == ("val", 1)
    assert found.templates == TEMPLATES["imagenet"]  # where the folder has none
    assert find_benchmark("imagenet", tmp_path, "train") is None


def test_retrieval_shards_have_a_caption_a_line(tmp_path: Path) -> None:
    folder = tmp_path / "wds_flickr30k"
    shards(folder, "test", [["A dog.\nOne dog.", "A cat."]], suffix="txt")
    (folder / "dataset_type.txt").write_text("retrieval\n")
    found = open_benchmark("flickr30k", tmp_path)
    assert found.labels is None
    assert [found.source[position].captions for position in (0, 1)] == [("A dog.", "One dog."), ("A cat.",)]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("test/nshards.txt", "3\n", r"2\.tar: no such shard, though .*nshards\.txt says 3"),
        ("test/nshards.txt", "some\n", "expected how many shards"),
        ("dataset_type.txt", "multilabel\n", r"says 'multilabel'.*original layout"),
        ("zeroshot_classification_templates.txt", "a photo\n", "no {}"),
    ],
)
def test_shards_that_do_not_fit_together_are_an_error(
    tmp_path: Path, file: str, text: str, message: str
) -> None:
    folder = tmp_path / "wds_mnist"
    shards(folder, "test", [["1"], ["0"]])
    (folder / "classnames.txt").write_text("zero\none\n")
    (folder / file).write_text(text)
    with pytest.raises(DiptychError, match=message):
        open_benchmark("mnist", tmp_path)


def test_a_saved_datasets_class_names_are_matched_by_their_letters(tmp_path: Path) -> None:
    saved(tmp_path / "eurosat", [0, 1, 2], ["Annual Crop", "sea_lake", "Highway or Road"])
    assert labels_of("eurosat", tmp_path, "all") == ["AnnualCrop", "SeaLake", "Highway"]


def test_parquet_files_of_a_repository_are_found_by_split_and_column(tmp_path: Path) -> None:
    (tmp_path / "cifar100" / "cifar100").mkdir(parents=True)
    table = table_of([1, 0], ["apple", "aquarium_fish"], "fine_label")
    pyarrow.parquet.write_table(table, tmp_path / "cifar100" / "cifar100" / "test-00000-of-00001.parquet")
    assert labels_of("cifar100", tmp_path) == ["aquarium_fish", "apple"]
    with pytest.raises(DataError, match="split train: not found"):
        open_benchmark("cifar100", tmp_path, "train")


def test_a_name_that_two_classes_share_is_not_guessed(tmp_path: Path) -> None:
    saved(tmp_path / "imagenet", [0, 1], ["missile", "tench"])
    # Left as it is, so that a measurement says that it is not among the classes.
    assert labels_of("imagenet", tmp_path) == ["missile", "n01440764"]


def test_the_datasets_own_folder_is_a_root_too(tmp_path: Path) -> None:
    layouts.food101(tmp_path)
    assert labels_of("food101", tmp_path / "food-101") == ["apple_pie", "waffles"]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], r"data: no such folder\. Put it here: .*data/food-101, which holds meta/test\.txt"),
        (["data"], r"data has no folder food-101\. Put it here"),
        (
            ["data/food-101"],
            r"data/food-101 is there, but has no meta and no folder 'test' of class folders in it",
        ),
    ],
)
def test_an_absent_dataset_says_what_to_put_where(tmp_path: Path, folders: list[str], message: str) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=message) as caught:
        open_benchmark("food101", tmp_path / "data")
    assert all(
        words in str(caught.value)
        for words in ("the authors' page", "wds_food101/test/0.tar", "DIPTYCH_DATA")
    )


@pytest.mark.parametrize("name", [name for name, dataset in all_datasets().items() if dataset.markers])
def test_every_dataset_that_is_absent_names_its_layout(name: str, tmp_path: Path) -> None:
    dataset = all_datasets()[name]
    if name == "fashion_mnist" and find_benchmark(name, tmp_path, "test"):
        return  # the Debian package is installed
    with pytest.raises(DataError) as caught:
        open_benchmark(name, tmp_path)
    assert all(
        words in str(caught.value) for words in (dataset.title, dataset.layout, dataset.origin, "Put it here")
    )


def test_unknown_names_and_splits_are_answered_with_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'cifar10'"):
        open_benchmark("cifr10", tmp_path)
    with pytest.raises(SettingsError, match="no split 'tset'; did you mean 'test'"):
        open_benchmark("cifar10", tmp_path, "tset")


def test_what_the_command_line_takes_names_a_dataset_and_perhaps_a_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.food101(tmp_path)
    assert benchmark_from("food101", tmp_path) is None
    assert benchmark_from("photos/benchmark:food101", tmp_path) is None
    found = [benchmark_from(f"benchmark:food101{split}", tmp_path) for split in ("", ":train")]
    assert [one.split for one in found if one] == ["test", "train"]
    monkeypatch.setenv("DIPTYCH_DATA", str(tmp_path))
    assert default_root() == tmp_path
    assert benchmark_from("benchmark:food101") is not None
    monkeypatch.delenv("DIPTYCH_DATA")
    assert default_root() == Path("data")


def group(name: Group) -> dict[str, Dataset]:
    return {known: dataset for known, dataset in all_datasets().items() if dataset.group == name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tittle": "x"}, r"unknown setting 'tittle'; did you mean 'title'"),
        ({"reader": "cifar11"}, r"unknown reader 'cifar11'; did you mean 'cifar10'"),
        ({"reader": {"kind": "class-folders", "folder": "."}}, r"reader.*unknown setting 'folder'"),
        ({"metric": "top2"}, r"metric.*'top2' is not one of"),
        ({"templates": "imagenett"}, r"unknown templates 'imagenett'; did you mean 'imagenet'"),
    ],
)
def test_the_file_of_a_dataset_is_read_strictly(change: dict[str, Any], message: str) -> None:
    values = set_values("eurosat")
    build(Dataset, values, "eurosat.toml")  # without the change it is read
    with pytest.raises(SettingsError, match=f"eurosat.toml.*{message}"):
        build(Dataset, values | change, "eurosat.toml")


def test_the_paper_has_27_datasets_with_names_and_metrics() -> None:
    assert len(group("paper")) == 27
    for name, dataset in all_datasets().items():
        assert dataset.test_split in dataset.splits, name
        assert dataset.train_split is None or dataset.train_split in dataset.splits, name
        if dataset.task == "zero-shot":
            assert dataset.metric in get_args(Headline), name
    uneven = {name for name, dataset in group("paper").items() if dataset.metric == "mean_per_class"}
    assert uneven == {"fgvc_aircraft", "oxford_pets", "caltech101", "flowers102"}
    others = {
        name: d.metric for name, d in group("paper").items() if d.metric not in ("top1", "mean_per_class")
    }
    assert others == {"voc2007": "map11", "kinetics700": "mean_top1_top5", "hateful_memes": "roc_auc"}


def test_the_natural_shifts_are_those_of_their_rules() -> None:
    assert set(group("shift")) == set(SHIFTS)
    assert {name: dataset.test for name, dataset in group("shift").items()} == {
        name: shift.images for name, shift in SHIFTS.items()
    }


def test_a_shift_with_fewer_classes_is_measured_among_those(tmp_path: Path) -> None:
    layouts.imagenet_r(tmp_path)
    found = open_benchmark("imagenet-r", tmp_path)
    assert found.labels is not None
    assert found.labels.names == class_map("imagenet-r").names
    assert found.labels.phrases[:2] == (("goldfish",), ("great white shark",))
    assert found.templates == TEMPLATES["imagenet"]


@pytest.mark.parametrize("name", ["food101", "mnist", "imagenetv2"])
def test_a_source_can_be_sent_to_another_process(name: str, tmp_path: Path) -> None:
    {"food101": layouts.food101, "mnist": layouts.mnist, "imagenetv2": layouts.imagenet_v2}[name](tmp_path)
    source = open_benchmark(name, tmp_path).source
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint == source.fingerprint
    assert [copy[0].key, copy[0].label] == [source[0].key, source[0].label]
    assert copy.describe() == source.describe()
    with pytest.raises(IndexError):
        copy[len(copy)]


def test_the_fingerprint_follows_the_labels(tmp_path: Path) -> None:
    layouts.food101(tmp_path / "one")
    layouts.food101(tmp_path / "two")
    (tmp_path / "two" / "food-101" / "meta" / "test.txt").write_text("waffles/3\napple_pie/2\n")
    first, second = (open_benchmark("food101", tmp_path / name).source for name in ("one", "two"))
    assert first.fingerprint != second.fingerprint


def test_a_benchmark_is_all_that_a_zero_shot_measurement_needs(
    tmp_path: Path, tiny_clip: ImageModel, tiny_preprocess: Preprocess
) -> None:
    layouts.mnist(tmp_path)
    found = open_benchmark("mnist", tmp_path)
    report = evaluate_zero_shot(
        tiny_clip,
        tiny_preprocess,
        found.source,
        model_name="tiny",
        labels=found.labels,
        templates=found.templates,
    )
    assert report.scores.count == 6
    assert report.scores.chance["top1"] == pytest.approx(0.1)  # ten classes, though six occur


def test_the_bundled_sample_needs_no_root() -> None:
    found = open_benchmark("sample", "nowhere")
    assert (len(found.source), found.label_from, found.labels) == (500, "caption", None)


def test_fashion_mnist_of_debian_is_found_and_whole() -> None:
    # `make test` unpacks the package dataset-fashion-mnist and has DIPTYCH_DATA name its folder.
    for split, count in (("train", 60_000), ("test", 10_000)):
        source = open_benchmark("fashion_mnist", default_root(), split).source
        assert len(source) == count
        labels = [source[position].label for position in range(0, count, 7)]
        assert np.abs(np.bincount(np.array(labels, int)) / len(labels) - 0.1).max() < 0.01


def test_the_listing_says_what_is_there_and_where_the_rest_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.food101(tmp_path)
    assert main(["evaluate", "datasets", "--root", str(tmp_path), "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["datasets"]}
    assert set(listed) == set(all_datasets())
    assert (listed["food101"]["found"], listed["food101"]["form"]) == (str(tmp_path / "food-101"), "original")
    assert (listed["cifar10"]["found"], listed["cifar10"]["put_at"]) == (None, "cifar-10-batches-py")
    assert main(["evaluate", "datasets", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"put it at {tmp_path / 'cifar-10-batches-py'}" in out
    assert "1,281,167" in out


def test_one_dataset_is_told_about_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "datasets", "voc2007"]) == 0
    out = capsys.readouterr().out
    assert all(
        words in out for words in ("map11", "ImageSets/Main/test.txt", "multi-label", "torchvision's reader")
    )
    assert main(["evaluate", "datasets", "voc207"]) == 1
    assert "did you mean 'voc2007'" in capsys.readouterr().err


def test_the_page_says_what_the_table_of_datasets_says() -> None:
    page = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text("utf-8")
    rows = {cells[1].strip("` "): [cell.strip("` ") for cell in cells[2:]] for cells in _cells(page)}
    assert set(rows) == set(all_datasets())
    for name, dataset in all_datasets().items():
        sizes = [
            "-" if size is None else f"{size:,}" for size in (dataset.classes, dataset.train, dataset.test)
        ]
        assert rows[name][:4] == [dataset.metric, *sizes], name
        assert rows[name][5:7] == [dataset.folders[0], dataset.checked], name


def _cells(page: str) -> list[list[str]]:
    return [line.split("|") for line in page.splitlines() if line.startswith("| `")]
