"""Folders of open_clip and of transformers, for tests that these load them, and that we read them."""

from pathlib import Path

from diptych.data.images.transforms import Preprocess
from diptych.exporting.open_clip_folder import write_open_clip
from diptych.exporting.transformers_folder import write_transformers
from diptych.models.image_model import ImageModel
from diptych.weights.folders import new_folder
from diptych.weights.foreign import open_clip, transformers


def write_open_clip_folder(folder: Path, model: ImageModel, preprocess: Preprocess) -> None:
    """Write `model` without the check of `diptych.export`."""
    with new_folder(folder, open_clip.CONFIG) as work:
        write_open_clip(work, model, preprocess)


def write_transformers_folder(folder: Path, model: ImageModel, preprocess: Preprocess) -> None:
    """Write `model` without the check of `diptych.export`."""
    with new_folder(folder, transformers.CONFIG) as work:
        write_transformers(work, model, preprocess)
