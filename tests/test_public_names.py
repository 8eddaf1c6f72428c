"""The public surface, exactly: a name that appears or goes is a decision, noted in CHANGELOG.md."""

import importlib
import statistics
import subprocess
import sys

import pytest

import diptych
from diptych import errors

PUBLIC = {
    "CheckpointError",
    "DataError",
    "DiptychError",
    "DownloadError",
    "ImageError",
    "MissingExtraError",
    "NotFiniteError",
    "QueryPart",
    "SearchIndexError",
    "SettingsError",
    "TextError",
    "UsageError",
    "__version__",
    "available_models",
    "build_index",
    "classify",
    "embed_images",
    "embed_texts",
    "evaluate",
    "export",
    "finetune",
    "load",
    "open_index",
    "open_source",
    "save",
    "tokenize",
    "train",
    "write_finetune_page",
}
IMPORT_SECONDS = 0.3


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_public_names_are_exactly_these() -> None:
    assert set(diptych.__all__) == PUBLIC
    assert len(diptych.__all__) == len(PUBLIC)
    assert set(dir(diptych)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_exists(name: str) -> None:
    assert getattr(diptych, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        getattr(diptych, "no_such_name")  # noqa: B009 - the name is deliberately unknown


def test_every_error_is_public_and_a_diptych_error() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined == {name for name in PUBLIC if name.endswith("Error")}
    assert all(issubclass(getattr(errors, name), errors.DiptychError) for name in defined)


def test_static_names_match_the_lazy_table() -> None:
    # What type checkers and editors read (`if TYPE_CHECKING`) is what __getattr__ serves.
    for name, home in diptych._HOMES.items():
        assert getattr(importlib.import_module(home), name) is getattr(diptych, name)


def test_import_loads_neither_torch_nor_anything_heavy() -> None:
    loaded = run("import sys, diptych; print(' '.join(sys.modules))").split()
    assert "diptych" in loaded
    assert {"torch", "numpy", "PIL", "rich", "cyclopts", "safetensors"}.isdisjoint(loaded)


def test_using_a_name_loads_its_home_and_the_check_above_can_see_it() -> None:
    loaded = run("import sys, diptych; diptych.tokenize; print(' '.join(sys.modules))").split()
    assert "diptych.tokenizer" in loaded


def test_import_takes_less_than_its_promised_time() -> None:
    # Time of the processor, so that what else runs on the machine does not count.
    code = "import time; t = time.process_time(); import diptych; print(time.process_time() - t)"
    assert statistics.median(float(run(code)) for _ in range(3)) < IMPORT_SECONDS
