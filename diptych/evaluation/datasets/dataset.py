"""What is known of a published dataset, beside its images: the schema of the files in `sets/`."""

from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from diptych.config import build, nearest
from diptych.errors import SettingsError
from diptych.evaluation.datasets.listed_images import Reader
from diptych.evaluation.datasets.readers import READERS, ClassFolders, Karpathy, OneFile
from diptych.evaluation.datasets.set_files import set_names, set_values
from diptych.evaluation.zero_shot.prompts import TEMPLATES

# zero-shot: one class an image. multi-label: several. retrieval: captions. natural-shift: a rule of its own.
Task = Literal["zero-shot", "multi-label", "retrieval", "natural-shift"]
# pm: of video frames, alone and with all their neighbours.
Metric = Literal["top1", "mean_per_class", "mean_top1_top5", "map11", "roc_auc", "image_to_text_r1", "pm"]
# paper: Table 9 of Radford et al. (2021). shift: their natural shifts.
Group = Literal["paper", "shift", "further"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One published set.

    Class counts and sizes are the paper's where they could be checked against another source, and None where they
    could not. What the paper counts as training images is the split `trained_on`.
    """

    title: str
    group: Group = "further"
    order: int = 1_000  # place in the list of its group; that of Table 9 for the paper's
    reader: str | ClassFolders | Karpathy | OneFile  # a key of `READERS`, or one with its arguments
    folders: tuple[str, ...]  # names of its folder below the root, or where a system keeps it
    layout: str  # what lies in the folder
    markers: tuple[str, ...]  # patterns of files or folders, any of which is there; none: part of a package
    origin: str = "the authors' page"  # where to get it
    splits: tuple[str, ...] = ("train", "test")  # as the reader takes them
    tested_on: str = ""  # the paper's splits, where their names do not say
    trained_on: str = ""
    metric: Metric = "top1"
    task: Task = "zero-shot"
    classes: int | None = None  # how many
    train: int | None = None  # images
    test: int | None = None  # images
    label_column: str | None = None  # in a folder of `datasets`
    label_from: Literal["label", "caption"] = "label"  # the field of an example that names its class
    group_by: str | None = None  # metadata by whose values a suite reports it as well
    shards: str | None = None  # CLIP_benchmark's name for it, after `wds_`
    checked: str = "nothing: files made after the authors' description"  # what its reader is tested against
    note: str = ""  # what a user should know
    # The dataset whose classes and templates it shares; some of the classes if it lists `labels` itself.
    labels_of: str | None = None
    # Names of the classes in the data, or a table from these to a phrase or several; the data's own when not given.
    labels: tuple[str, ...] | dict[str, str | tuple[str, ...]] | None = None
    numbered: bool = False  # whether copies count the classes 0, 1, ... in the order of `labels`
    also: dict[str, str] = field(
        default_factory=dict
    )  # further ways to write a class in copies, and its name
    templates: str | tuple[str, ...] | None = None  # a name in `prompts.py`, or the published ones

    def __post_init__(self) -> None:
        if isinstance(self.reader, str) and self.reader not in READERS:
            raise SettingsError(f"unknown reader {self.reader!r}; {nearest(self.reader, READERS)}")
        if isinstance(self.templates, str) and self.templates not in TEMPLATES:
            raise SettingsError(f"unknown templates {self.templates!r}; {nearest(self.templates, TEMPLATES)}")

    @property
    def read(self) -> Reader:
        """Return the function that opens a split of the original layout."""
        return READERS[self.reader] if isinstance(self.reader, str) else self.reader

    @property
    def test_split(self) -> str:
        """Return the split that published figures are about."""
        return self.tested_on or ("test" if "test" in self.splits else self.splits[-1])

    @property
    def train_split(self) -> str | None:
        """Return the split that the paper's probes are trained on; None where there is none."""
        usual = (name for name in ("trainval", "train") if name in self.splits)
        return self.trained_on or next(usual, None)


@cache
def dataset_named(name: str) -> Dataset:
    """Return the entry of a dataset.

    Raises:
        SettingsError: there is no such dataset, or its file has an unknown, a missing or a wrong value.
    """
    return build(Dataset, set_values(name), f"{name}.toml")


@cache
def all_datasets() -> dict[str, Dataset]:
    """Return every published dataset by name: the paper's 27 in its order, then the natural shifts, then the others."""
    groups = ("paper", "shift", "further")
    found = {name: dataset_named(name) for name in set_names()}
    return dict(sorted(found.items(), key=lambda item: (groups.index(item[1].group), item[1].order)))
