"""Diptych: contrastive language-image pre-training, from a folder of pairs to a search page.

The names in `__all__` are the public surface (docs/python.md). All other names, modules included, may change in any
version. Names are imported when they are first used, so that `import diptych` stays cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.data.sources.opening import open_source as open_source
    from diptych.embed.encode import embed_images as embed_images
    from diptych.embed.encode import embed_texts as embed_texts
    from diptych.errors import CheckpointError as CheckpointError
    from diptych.errors import DataError as DataError
    from diptych.errors import DiptychError as DiptychError
    from diptych.errors import DownloadError as DownloadError
    from diptych.errors import ImageError as ImageError
    from diptych.errors import MissingExtraError as MissingExtraError
    from diptych.errors import NotFiniteError as NotFiniteError
    from diptych.errors import SearchIndexError as SearchIndexError
    from diptych.errors import SettingsError as SettingsError
    from diptych.errors import TextError as TextError
    from diptych.errors import UsageError as UsageError
    from diptych.evaluation.job import evaluate as evaluate
    from diptych.evaluation.zero_shot.own_labels import classify as classify
    from diptych.exporting.export_model import export as export
    from diptych.pretrained import available_models as available_models
    from diptych.pretrained import load as load
    from diptych.pretrained import save as save
    from diptych.reports.finetune_page import write_finetune_page as write_finetune_page
    from diptych.runs.finetune_run import finetune as finetune
    from diptych.runs.training_run import train as train
    from diptych.search.building.build_index import build_index as build_index
    from diptych.search.query import QueryPart as QueryPart
    from diptych.search.search_index import open_index as open_index
    from diptych.tokenizer import tokenize as tokenize

__version__ = "0.1.0"

# The public names, and the modules that they come from.
_HOMES = {
    "available_models": "diptych.pretrained",
    "load": "diptych.pretrained",
    "save": "diptych.pretrained",
    "export": "diptych.exporting.export_model",
    "tokenize": "diptych.tokenizer",
    "embed_images": "diptych.embed.encode",
    "embed_texts": "diptych.embed.encode",
    "classify": "diptych.evaluation.zero_shot.own_labels",
    "train": "diptych.runs.training_run",
    "finetune": "diptych.runs.finetune_run",
    "write_finetune_page": "diptych.reports.finetune_page",
    "evaluate": "diptych.evaluation.job",
    "open_source": "diptych.data.sources.opening",
    "build_index": "diptych.search.building.build_index",
    "open_index": "diptych.search.search_index",
    "QueryPart": "diptych.search.query",
    "DiptychError": "diptych.errors",
    "SettingsError": "diptych.errors",
    "UsageError": "diptych.errors",
    "DataError": "diptych.errors",
    "ImageError": "diptych.errors",
    "TextError": "diptych.errors",
    "CheckpointError": "diptych.errors",
    "DownloadError": "diptych.errors",
    "SearchIndexError": "diptych.errors",
    "NotFiniteError": "diptych.errors",
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
