"""Diptych: contrastive language-image pre-training, from a folder of pairs to a search page.

Names are imported when they are first used, so that `import diptych` stays cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.embed.encode import embed_images as embed_images
    from diptych.embed.encode import embed_texts as embed_texts
    from diptych.errors import CheckpointError as CheckpointError
    from diptych.errors import DataError as DataError
    from diptych.errors import DiptychError as DiptychError
    from diptych.errors import DownloadError as DownloadError
    from diptych.errors import ImageError as ImageError
    from diptych.errors import MissingExtraError as MissingExtraError
    from diptych.errors import SearchIndexError as SearchIndexError
    from diptych.errors import SettingsError as SettingsError
    from diptych.errors import TextError as TextError
    from diptych.errors import UsageError as UsageError
    from diptych.pretrained import available_models as available_models
    from diptych.pretrained import load as load
    from diptych.pretrained import save as save
    from diptych.tokenizer import tokenize as tokenize

__version__ = "0.1.0"

_HOMES = {
    "available_models": "diptych.pretrained",
    "load": "diptych.pretrained",
    "save": "diptych.pretrained",
    "tokenize": "diptych.tokenizer",
    "embed_images": "diptych.embed.encode",
    "embed_texts": "diptych.embed.encode",
    "DiptychError": "diptych.errors",
    "SettingsError": "diptych.errors",
    "UsageError": "diptych.errors",
    "DataError": "diptych.errors",
    "ImageError": "diptych.errors",
    "TextError": "diptych.errors",
    "CheckpointError": "diptych.errors",
    "DownloadError": "diptych.errors",
    "SearchIndexError": "diptych.errors",
    "MissingExtraError": "diptych.errors",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - literal names, from the table above


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'diptych' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
