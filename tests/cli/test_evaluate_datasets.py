"""Datasets in the layouts that people have, measured as a user types it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command_line import Run
from tests.evaluation.datasets import copied_layouts as copies
from tests.evaluation.datasets import published_layouts as layouts


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own cache is left alone."""
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("make", "arguments", "count"),
    [
        (copies.cifar10_hub, "benchmark:cifar10 --root .", 3),
        (copies.cifar10_numbers, "benchmark:cifar10 --root cifar10.parquet", 3),
        (layouts.cifar10, "benchmark:cifar10 --root cifar-10-batches-py", 2),
        (copies.cifar10_folders, "benchmark:cifar10 --root CIFAR-10-images", 10),
        (copies.caltech101_folders, "benchmark:caltech101 --root caltech-101", 102),
        (copies.gtsrb_official, "benchmark:gtsrb --root GTSRB", 2),
        (copies.mnist_folders, "benchmark:mnist --root mnist_png", 10),
        (copies.fer2013_folders, "benchmark:fer2013 --root .", 7),
        (copies.pacs, "benchmark:pacs --root PACS --group-by domain", 28),
        (copies.tiny_imagenet, "benchmark:tiny_imagenet --root .", 3),
        (copies.grocery_store, "benchmark:grocery_store --root . --group-by coarse", 2),
    ],
)
def test_a_layout_is_measured_as_a_user_types_it(
    make: Callable[[Path], None], arguments: str, count: int, tiny: Path, run: Run
) -> None:
    make(Path())
    outcome = run("evaluate", "zero-shot", "--model", tiny, "--json", "--data", *arguments.split())
    assert outcome.code == 0, outcome.err
    report = outcome.json
    name = arguments.removeprefix("benchmark:").partition(" ")[0]
    metric = "mean_per_class" if name == "caltech101" else "top1"
    assert (report["count"], next(iter(report["metrics"]))) == (count, metric)
    assert not report["skipped"]
    assert not report["remarks"]
    groups = {"pacs": set(copies.DOMAINS), "grocery_store": {"Apple", "Banana"}}
    assert set(report["groups"]) == groups.get(name, set())


def test_classes_that_are_numbers_are_remarked_on_unless_the_dataset_is_named(tiny: Path, run: Run) -> None:
    copies.cifar10_numbers(Path())
    arguments = ("evaluate", "zero-shot", "--model", tiny, "--json", "--data")
    (remark,) = run(*arguments, "cifar10.parquet").json["remarks"]
    assert "calls its classes by numbers (0 to 9)" in remark
    assert "benchmark:NAME --root FOLDER" in remark
    Path("names.toml").write_text('[labels]\n9 = "truck"\n0 = "airplane"\n3 = "cat"\n', encoding="utf-8")
    assert not run(*arguments, "cifar10.parquet", "--labels-file", "names.toml").json["remarks"]


def test_a_probe_learns_from_the_training_split_of_a_copy(tiny: Path, run: Run) -> None:
    copies.mnist_folders(Path())
    outcome = run("evaluate", "few-shot", "--test", "benchmark:mnist", "--root", "mnist_png", "--shots", "1", "--json",
                  "--model", tiny)  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.json["count"] == 10
