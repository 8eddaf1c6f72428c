"""The rules of the seven natural-shift sets that CLIP is measured on (Radford et al. 2021, section 3.3).

Most of them have fewer classes than ImageNet, or classes that stand for several of ImageNet's. A model's scores are
brought to the set's classes *before* the largest is taken: a score outside them must not win. The accuracy without
the shift is measured by the same rule, on the validation images of the same classes. Everything here is a function
of scores or predictions; the files of the sets belong to `diptych.evaluation.datasets`.

The rules are those of the testbed of Taori et al. (2020), github.com/modestyachts/imagenet-testbed.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import numpy as np
from PIL import Image

from diptych.config import read_toml
from diptych.errors import DataError
from diptych.evaluation.datasets.set_files import names_of
from diptych.evaluation.metrics import Flags, Floats, Integers, Interval, wilson

_TABLES = resources.files(__package__) / "natural_shifts"
_IMAGENET_CLASSES = 1000
_VALIDATION_IMAGES = 50  # of each class of ILSVRC 2012
_OBJECTNET_BORDER = 2  # pixels; the published images have a red frame


@dataclass(frozen=True)
class NaturalShift:
    """One set: what it is called, how large it is, and what its classes are."""

    title: str
    images: int  # that are scored; anchor frames of the videos
    table: str | None  # its classes in `natural_shifts/`; None where they are all of ImageNet's
    frames: bool = False  # videos: scored by `frame_accuracy`


SHIFTS = {
    "imagenetv2": NaturalShift("ImageNetV2 (matched frequency)", 10_000, None),
    # 50,000 by its authors' page; the testbed's accuracies are whole numbers of 50,889 images.
    "imagenet-sketch": NaturalShift("ImageNet-Sketch", 50_889, None),
    "imagenet-r": NaturalShift("ImageNet-R", 30_000, "imagenet-r.toml"),
    "imagenet-a": NaturalShift("ImageNet-A", 7_500, "imagenet-a.toml"),
    "objectnet": NaturalShift("ObjectNet", 18_514, "objectnet.toml"),
    "imagenet-vid-robust": NaturalShift(
        "ImageNet-Vid-Robust", 1_109, "imagenet-vid-robust.toml", frames=True
    ),
    # 2,530 anchors by its paper; the testbed's accuracies are whole numbers of 2,030, those that its reviews left.
    "ytbb-robust": NaturalShift("YouTube-BB-Robust", 2_030, "ytbb-robust.toml", frames=True),
}

# ImageNet-A holds what this ResNet-50 (torchvision's first weights) got wrong: where its fit is broken in two. Its
# accuracy on ImageNet's validation images of the 200 classes, and of all (testbed of Taori et al.).
IMAGENET_A_PIVOT = 0.9186
IMAGENET_A_PIVOT_ALL_CLASSES = 0.7613


@dataclass(frozen=True)
class ClassMap:
    """The classes of a set, and the ImageNet classes that count as each."""

    names: tuple[str, ...]  # folders of the set, or names, in the order of its labels
    members: tuple[tuple[int, ...], ...]  # columns of ImageNet's 1,000; none where ImageNet lacks the class

    def __post_init__(self) -> None:
        if len(self.names) != len(self.members):
            raise DataError(f"{len(self.names)} names for {len(self.members)} classes: expected one each")
        if len(set(self.columns)) != len(self.columns):
            raise DataError("an ImageNet class stands for two classes of the set; expected one at most")

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """Return the sub-list: every ImageNet class that counts as one of these, ascending."""
        return tuple(sorted(column for member in self.members for column in member))

    @property
    def validation_images(self) -> int:
        """Return how many of ImageNet's validation images have a class of the sub-list."""
        return _VALIDATION_IMAGES * len(self.columns)

    def project(self, logits: Floats) -> Floats:
        """Reduce scores (n, 1000) of ImageNet's classes to (n, classes): the largest of each class's members.

        A class without members gets minus infinity: it cannot be predicted. (The testbed leaves it at 0, which wins
        where a model's scores are all negative.)
        """
        if logits.ndim != 2 or logits.shape[1] != _IMAGENET_CLASSES:
            raise DataError(f"scores of shape {logits.shape}: expected (images, {_IMAGENET_CLASSES})")
        scores = np.full((len(logits), len(self.names)), -np.inf, logits.dtype)
        for place, member in enumerate(self.members):
            if member:
                scores[:, place] = logits[:, member].max(axis=1)
        return scores

    def predict(self, logits: Floats) -> Integers:
        """Return the column (n,) of the class that each image is given, from scores (n, 1000)."""
        places: Integers = np.argmax(self.project(logits), axis=1)
        return places

    def restrict(self, target: Integers) -> tuple[Flags, Integers]:
        """Return which of ImageNet's validation images are of the sub-list, and as which class they count.

        target: (n,) columns of ImageNet's 1,000. Returns (n,) flags, and a place for each image that is flagged.
        """
        place = np.full(_IMAGENET_CLASSES, -1, np.int64)
        for number, member in enumerate(self.members):
            place[list(member)] = number
        kept = place[target] >= 0
        return kept, place[target[kept]]


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's 1,000 classes in the order of a model's columns."""
    return names_of("imagenet").names


@cache
def class_map(name: str) -> ClassMap:
    """Return the classes of one of `SHIFTS`; DataError for an unknown name."""
    if name not in SHIFTS:
        raise DataError(f"{name!r}: not a natural-shift set; there are {', '.join(SHIFTS)}")
    column = {wnid: place for place, wnid in enumerate(imagenet_classes())}
    table = SHIFTS[name].table
    if table is None:
        return ClassMap(imagenet_classes(), tuple((place,) for place in range(_IMAGENET_CLASSES)))
    with resources.as_file(_TABLES / table) as file:
        values = read_toml(file)
    members: dict[str, list[str]] = values.get("members") or {wnid: [wnid] for wnid in values["classes"]}
    return ClassMap(
        tuple(members), tuple(tuple(sorted(column[wnid] for wnid in ids)) for ids in members.values())
    )


def shift_accuracy(classes: ClassMap, logits: Floats, target: Integers) -> float:
    """Return the accuracy on a set of images. logits: (n, 1000); target: (n,) places in `classes.names`."""
    return float(np.mean(classes.predict(logits) == target))


def in_distribution_accuracy(classes: ClassMap, logits: Floats, target: Integers) -> float:
    """Return the accuracy on ImageNet's validation images of the set's classes, by the set's rule.

    logits: (n, 1000); target: (n,) columns of ImageNet's 1,000. Images of other classes are left out. (For ObjectNet
    the testbed asks for the very ImageNet class here, and on ObjectNet itself for any that counts as the right one.)
    """
    kept, place = classes.restrict(target)
    if not kept.any():
        raise DataError(
            "no image of the set's classes among the validation images; expected 50 of each class"
        )
    return shift_accuracy(classes, logits[kept], place)


def crop_objectnet(image: Image.Image) -> Image.Image:
    """Cut the red frame off an ObjectNet image: two pixels on each side, before any resizing."""
    width, height = image.size
    if min(width, height) <= 2 * _OBJECTNET_BORDER:
        raise DataError(f"an image of {width} x {height} pixels: nothing is left inside ObjectNet's frame")
    border = _OBJECTNET_BORDER
    return image.crop((border, border, width - border, height - border))


@dataclass(frozen=True)
class Anchor:
    """A frame of a video, and the valid frames near it: those that people confirmed to show the same thing."""

    frame: int  # row of the predictions
    near: tuple[int, ...]  # rows of the valid frames within +-k, itself not among them; may be none
    labels: Collection[int]  # the classes that are right for the anchor
    near_labels: tuple[Collection[int], ...] | None = (
        None  # those of each near frame; the anchor's when not given
    )


@dataclass(frozen=True)
class FrameAccuracy:
    """Accuracy on anchor frames alone (pm-0), and on anchors whose whole neighbourhood is right (pm-k)."""

    anchors: int
    pm0: float
    pmk: float

    @property
    def mean(self) -> float:
        """Return the mean of the two: what CLIP's average over the seven sets counts."""
        return (self.pm0 + self.pmk) / 2

    @property
    def intervals(self) -> tuple[Interval, Interval]:
        """Return Wilson's, of pm-0 and of pm-k."""
        return wilson(self.pm0, self.anchors), wilson(self.pmk, self.anchors)


def frame_accuracy(predicted: Integers, anchors: Sequence[Anchor]) -> FrameAccuracy:
    """Return how many anchors are right, and how many with all their valid near frames.

    predicted: (frames,) classes. One wrong frame makes an anchor wrong for pm-k; an anchor without near frames is
    judged alone.
    """
    if not anchors:
        raise DataError("no anchor frames; expected at least one")
    right = held = 0
    for anchor in anchors:
        own = int(predicted[anchor.frame]) in anchor.labels
        labels = (anchor.labels,) * len(anchor.near) if anchor.near_labels is None else anchor.near_labels
        near = (int(predicted[frame]) in allowed for frame, allowed in zip(anchor.near, labels, strict=True))
        right += own
        held += own and all(near)
    return FrameAccuracy(len(anchors), right / len(anchors), held / len(anchors))
