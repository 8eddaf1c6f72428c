"""The suite's policy on skips: a test that did not run is a failure, wherever it is.

Two markers may skip, because no ordinary machine has what they need: `gpu` and `official_weights`. Any other
test that skips (an optional package is missing, a condition was forgotten) would turn a broken promise into a
green run, so it is reported as failed, with the reason that it gave.

Tests marked `photos` read a folder of research photographs that is not part of the project. They are deselected
where that folder is absent.
"""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

MAY_SKIP = ("gpu", "official_weights")
PHOTOS = Path(os.environ.get("DIPTYCH_PHOTOS") or Path(__file__).parent.parent / "shared" / "photos")


def pytest_configure() -> None:
    if os.environ.get("DIPTYCH_PHOTOS") and not PHOTOS.is_dir():
        raise pytest.UsageError(f"DIPTYCH_PHOTOS is not a folder: {PHOTOS}; correct or unset the variable")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
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
