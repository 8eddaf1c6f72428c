"""The other implementations that the benchmarks compare with."""

import importlib
import logging
import sys
import types
import warnings
from typing import Any


def import_open_clip() -> Any:
    """open_clip, also where torchvision is a build for CUDA beside a torch for the CPU."""
    # torchvision checks for its compiled operators when it is imported; no benchmark needs them.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))
    logging.getLogger().setLevel(logging.ERROR)  # it warns on every model that it makes without weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("open_clip")
        except ModuleNotFoundError as error:
            if error.name != "open_clip":
                raise
            raise SystemExit("this benchmark compares with open_clip: pip install open_clip_torch") from None
