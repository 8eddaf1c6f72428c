"""The suite's policy on skips: a test that did not run is a failure, wherever it is.

Two markers may skip, because no ordinary machine has what they need: `gpu` and `official_weights`. Any other
test that skips (an optional package is missing, a condition was forgotten) would turn a broken promise into a
green run, so it is reported as failed, with the reason that it gave.

Tests marked `photos` read a folder of research photographs that is not part of the project. They are deselected
where that folder is absent.

Every test is marked `fast`, for `make check`, unless it is marked `nightly` or stands in a file or folder of `SLOW`.
"""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

MAY_SKIP = ("gpu", "official_weights")
TESTS = Path(__file__).parent / "tests"
# Under tests/: what trains, starts servers, browsers or many processes, or compares whole models.
SLOW = (
    "cli/test_app.py",
    "cli/test_caption.py",
    "cli/test_compare.py",
    "cli/test_demo.py",
    "cli/test_doctor.py",
    "cli/test_finetune.py",
    "cli/test_image_approaches.py",
    "cli/test_report_captions.py",
    "cli/test_search_command.py",
    "cli/test_sweep_command.py",
    "evaluation/test_linear_probe.py",
    "evaluation/test_logistic_regression.py",
    "evaluation/test_suite.py",
    "evaluation/test_survey.py",
    "experiments",
    "finetuning",
    "messy/test_messy_folder.py",
    "models/test_compile_blocks.py",
    "models/test_published_models.py",
    "parity",
    "search/test_approximate.py",
    "search/test_index.py",
    "search/test_kills.py",
    "search/test_refresh.py",
    "search/test_verify.py",
    "serving",
    "test_beginners_guide.py",
    "test_embed.py",
    "test_embed_on_ray.py",
    "test_embed_shards.py",
    "test_kept_files.py",
    "test_packaging.py",
    "test_pretrained.py",
    "test_public_names.py",
    "test_readme.py",
    "tokenizer/test_parity.py",
    "tokenizer/test_tokenizer.py",
    "tokenizer/test_vocabulary.py",
    "training",
    "weights/test_faults.py",
    "weights/test_hostile_files.py",
)
PHOTOS = Path(os.environ.get("DIPTYCH_PHOTOS") or Path(__file__).parent.parent / "shared" / "photos")


def pytest_configure() -> None:
    if os.environ.get("DIPTYCH_PHOTOS") and not PHOTOS.is_dir():
        raise pytest.UsageError(f"DIPTYCH_PHOTOS is not a folder: {PHOTOS}; correct or unset the variable")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = {TESTS / name for name in SLOW}
    for item in items:
        if not item.get_closest_marker("nightly") and slow.isdisjoint([item.path, *item.path.parents]):
            item.add_marker("fast")
    if PHOTOS.is_dir():
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("photos")])
    items[:] = [item for item in items if not item.get_closest_marker("photos")]


@pytest.fixture(scope="session")
def photos() -> Path:
    """Return the folder of research photographs, for tests marked `photos`."""
    return PHOTOS


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected_to_fail = hasattr(report, "wasxfail")
    if (
        report.skipped
        and not expected_to_fail
        and not any(item.get_closest_marker(name) for name in MAY_SKIP)
    ):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = (
        f"skipped, which this suite allows only under the markers {', '.join(MAY_SKIP)}: {reason}"
    )
