"""The root conftest.py turns skips into failures; these are the controls that show that it can see."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"
CONFIGURATION = (
    "[pytest]\nmarkers =\n    gpu: needs a CUDA device\n    official_weights: needs the checkpoints\n"
    "    photos: reads research photographs\n    fast: quick\n    nightly: long\n"
)
ROOT = CONFTEST.parent
READS_PHOTOS = "@pytest.mark.photos\ndef test_it(photos):\n    assert list(photos.iterdir())"


def slow_names() -> tuple[str, ...]:
    return runpy.run_path(str(CONFTEST))["SLOW"]  # type: ignore[no-any-return]


def run_suite(
    folder: Path, *sources: str, photos: Path | None = None, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a suite of one file for each source, under the project's own conftest.py."""
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "pytest.ini").write_text(CONFIGURATION)
    for number, source in enumerate(sources):
        (folder / f"test_sample_{number}.py").write_text(f"import pytest\n\n{source}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)]
    environment = os.environ | {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "DIPTYCH_PHOTOS": str(photos) if photos else "",
    }
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


def test_a_skip_fails_the_suite_and_says_why(tmp_path: Path) -> None:
    result = run_suite(
        tmp_path,
        "def test_it():\n    pytest.skip('reason one')",
        "@pytest.mark.skip(reason='reason two')\ndef test_it():\n    pass",
        "@pytest.mark.gpu\ndef test_other():\n    pass\n\ndef test_it():\n    pytest.skip('reason three')",
    )
    assert result.returncode == 1, result.stdout
    assert "2 failed, 1 passed, 1 error" in result.stdout
    assert (
        result.stdout.count("skipped, which this suite allows only under the markers gpu, official_weights")
        >= 3
    )
    assert all(reason in result.stdout for reason in ("reason one", "reason two", "reason three"))


def test_a_skip_fails_the_suite_in_several_processes_too(tmp_path: Path) -> None:
    sources = ["def test_it():\n    pytest.skip('reason one')", "def test_it():\n    pass"]
    result = run_suite(tmp_path, *sources, options=("-p", "xdist.plugin", "-n", "2"))
    assert result.returncode == 1, result.stdout
    assert "1 failed, 1 passed" in result.stdout
    assert "gpu, official_weights: Skipped: reason one" in result.stdout


def test_a_module_that_skips_itself_fails_the_suite(tmp_path: Path) -> None:
    source = "pytest.importorskip('no_such_package', reason='not installed')\ndef test_it():\n    pass"
    result = run_suite(tmp_path, source)
    assert result.returncode not in (0, 5), result.stdout
    assert "allows only under the markers" in result.stdout


def test_the_two_markers_may_skip_and_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    result = run_suite(
        tmp_path,
        "@pytest.mark.gpu\ndef test_it():\n    pytest.skip('no such device')",
        "@pytest.mark.official_weights\ndef test_it():\n    pytest.skip('no such files')",
        "@pytest.mark.xfail(strict=True)\ndef test_it():\n    raise ValueError",
    )
    assert result.returncode == 0, result.stdout
    assert "2 skipped, 1 xfailed" in result.stdout


def test_tests_of_photographs_are_deselected_without_the_folder_and_not_skipped(tmp_path: Path) -> None:
    result = run_suite(tmp_path, READS_PHOTOS, "def test_it():\n    pass")
    assert result.returncode == 0, result.stdout
    assert "1 passed, 1 deselected" in result.stdout


def test_tests_of_photographs_read_the_folder_that_the_variable_names(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    (tmp_path / "suite").mkdir()
    result = run_suite(tmp_path / "suite", READS_PHOTOS, photos=tmp_path / "photos")
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


def test_a_variable_that_names_no_folder_of_photographs_is_an_error(tmp_path: Path) -> None:
    result = run_suite(tmp_path, READS_PHOTOS, photos=tmp_path / "absent")
    assert result.returncode == 4, result.stdout
    assert f"DIPTYCH_PHOTOS is not a folder: {tmp_path / 'absent'}" in result.stderr


def test_fast_is_what_is_neither_nightly_nor_in_a_slow_file(tmp_path: Path) -> None:
    two = "def test_it():\n    pass\n\n@pytest.mark.nightly\ndef test_long():\n    pass"
    (tmp_path / "tests" / "training").mkdir(parents=True)
    (tmp_path / "tests" / "training" / "test_slow.py").write_text(two.join(["import pytest\n\n", ""]))
    result = run_suite(tmp_path, two, options=("-m", "fast"))
    assert result.returncode == 0, result.stdout
    assert "1 passed, 3 deselected" in result.stdout


def test_every_slow_file_exists() -> None:
    assert [name for name in slow_names() if not (ROOT / "tests" / name).exists()] == []
    assert list(slow_names()) == sorted(slow_names())
