"""torchvision's readers of the same layouts, to compare with."""

import importlib
import sys
import types
import warnings
from typing import Any

import pytest


@pytest.fixture(scope="session")
def torchvision_datasets() -> Any:
    """`torchvision.datasets`, also where torchvision is a build for CUDA beside a CPU-only torch."""
    # It checks for its compiled operators when it is imported; reading files needs none.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torchvision.datasets")
