"""What is known of a published dataset, beside its images."""

from dataclasses import dataclass
from typing import Literal

from diptych.evaluation.datasets.listed_images import Reader

# zero-shot: one class an image. multi-label: several. retrieval: captions. natural-shift: a rule of its own.
Task = Literal["zero-shot", "multi-label", "retrieval", "natural-shift"]
# pm: of video frames, alone and with all their neighbours.
Metric = Literal["top1", "mean_per_class", "mean_top1_top5", "map11", "roc_auc", "image_to_text_r1", "pm"]

TORCHVISION = "torchvision's reader of the same files"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One published set.

    read: opens one split of its original layout. folders: what its folder may be called below the root, or
    where a system keeps it; layout: what
    lies in it; markers: patterns of files or folders by one of which it is recognised,
    none where it is part of a package. origin: where it comes from.
    splits: as `read` takes them; tested_on and trained_on: the paper's, where their names do not say.
    classes, train, test: numbers of classes and images. names: its file in `names/`. templates: a set of
    `prompts.py`, where that file has none. label_column: of a folder of `datasets`. label_from: where an example's
    class stands. shards: what CLIP_benchmark calls it after `wds_`. checked: what its reader is tested against. note:
    what a user should know.
    """

    title: str
    read: Reader
    folders: tuple[str, ...]
    layout: str
    markers: tuple[str, ...]
    origin: str = "the authors' page"
    splits: tuple[str, ...] = ("train", "test")
    tested_on: str = ""
    trained_on: str = ""
    metric: Metric = "top1"
    task: Task = "zero-shot"
    classes: int | None = None
    train: int | None = None
    test: int | None = None
    names: str | None = None
    templates: str | None = None
    label_column: str | None = None
    label_from: Literal["label", "caption"] = "label"
    shards: str | None = None
    checked: str = "nothing: files made after the authors' description"
    note: str = ""

    @property
    def test_split(self) -> str:
        """The split that published figures are about."""
        return self.tested_on or ("test" if "test" in self.splits else self.splits[-1])

    @property
    def train_split(self) -> str | None:
        """The split that the paper's probes are trained on; None where there is none."""
        usual = (name for name in ("trainval", "train") if name in self.splits)
        return self.trained_on or next(usual, None)
