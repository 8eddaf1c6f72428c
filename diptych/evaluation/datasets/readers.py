"""The readers of published layouts that the file of a dataset can name, and their arguments."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diptych.data.sources.opening import Source, open_source
from diptych.evaluation.datasets import annotated_sets, arrays, frames, image_lists
from diptych.evaluation.datasets.listed_images import Reader


@dataclass(frozen=True)
class ClassFolders:
    """Reads a folder a class below `place`, in which `{split}` stands for the split."""

    kind: Literal["class-folders"]
    place: str = "{split}"
    renamed: dict[str, str] | None = None  # the folder of a split that has another name

    def __call__(self, folder: Path, split: str) -> Source:
        place = self.place.format(split=(self.renamed or {}).get(split, split))
        return image_lists.class_folders(folder / place)


@dataclass(frozen=True)
class Karpathy:
    """Reads a retrieval set with the splits of Karpathy and Fei-Fei (2015)."""

    kind: Literal["karpathy"]
    file: str  # the JSON file of all images
    images: str  # the folder of the images

    def __call__(self, folder: Path, split: str) -> Source:
        return annotated_sets.karpathy(folder / self.file, folder / self.images, split)


@dataclass(frozen=True)
class OneFile:
    """Reads a file that `open_source` takes, whatever the split."""

    kind: Literal["file"]
    file: str

    def __call__(self, folder: Path, split: str) -> Source:
        return open_source(folder / self.file)


def sample(folder: Path, split: str) -> Source:
    """Read the bundled sample; `folder` plays no part."""
    return open_source(f"sample:{split}")


# Readers without arguments, by the name that the file of a dataset has for each.
READERS: dict[str, Reader] = {
    reader.__name__: reader
    for reader in (
        annotated_sets.clevr_counts,
        annotated_sets.flowers102,
        annotated_sets.gtsrb,
        annotated_sets.kitti_distance,
        annotated_sets.stanford_cars,
        annotated_sets.voc2007,
        arrays.cifar10,
        arrays.cifar100,
        arrays.digits,
        arrays.fer2013,
        arrays.mnist,
        arrays.pcam,
        arrays.stl10,
        frames.robust_frames,
        image_lists.birdsnap,
        image_lists.dtd,
        image_lists.fgvc_aircraft,
        image_lists.food101,
        image_lists.grocery_store,
        image_lists.hateful_memes,
        image_lists.imagenet_v2,
        image_lists.oxford_pets,
        image_lists.pacs,
        image_lists.sun397,
        image_lists.tiny_imagenet,
        image_lists.ucf101,
        sample,
    )
}
