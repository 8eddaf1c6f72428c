"""Independent implementations for the tests to compare with: open_clip, transformers, OpenAI's own package, others."""

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests keep in the cache folder is not the user's, and is gone with them. No test asks the real hub."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.setenv("DIPTYCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the system keeps caches of the user in, for one test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(folder))
    return folder


@pytest.fixture(scope="session")
def open_clip() -> Any:
    """open_clip, also where torchvision is a build for CUDA beside a CPU-only torch."""
    return _reference("open_clip")


@pytest.fixture(scope="session")
def transformers() -> Any:
    """Hugging Face transformers."""
    return _reference("transformers")


@pytest.fixture(scope="session")
def metric_learning() -> Any:
    """pytorch-metric-learning, with the parts that the tests use."""
    for part in ("losses", "distances", "reducers"):
        _reference(f"pytorch_metric_learning.{part}")
    return _reference("pytorch_metric_learning")


@pytest.fixture(scope="session")
def timm_optim() -> Any:
    """The optimizers of timm, which open_clip brings."""
    return _reference("timm.optim")


@pytest.fixture(scope="session")
def openai_model() -> Any:
    """`clip/model.py` of OpenAI's package, distributed as clip-anytorch.

    The file alone: the package around it imports pkg_resources, which current setuptools no longer has.
    """
    package = importlib.util.find_spec("clip")
    assert package is not None
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / "model.py"
    spec = importlib.util.spec_from_file_location("openai_clip_model", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _reference(name: str) -> Any:
    """The module; its own warnings, and those of what it imports, are not this suite's errors."""
    # torchvision checks for its compiled operators when it is imported; only the transforms are needed here.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)
