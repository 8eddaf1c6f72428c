"""What a classifier, made of words or of labelled images, says of images of one class each, and what that scores."""

from collections.abc import Callable, Collection
from typing import NamedTuple, get_args

import numpy as np
from torch import Tensor

from diptych.config import nearest
from diptych.embed.encode import Vectors
from diptych.errors import DataError, SettingsError
from diptych.evaluation.metrics import (
    Flags,
    Floats,
    Integers,
    mean_interval,
    mean_per_class,
    mean_per_class_interval,
    roc_auc,
    roc_auc_interval,
    wilson,
)
from diptych.evaluation.task_report import Outcomes, Scores
from diptych.evaluation.tasks import Headline

_IMAGES_AT_ONCE = 256


class Answers(NamedTuple):
    """What a classifier says of n images, and how far that is from the truth; every field is (n,).

    target: the right class. ranks: its place among all, 0 for the best; of classes with one similarity, the one
    listed first stands before the others. tied: whether a wrong class has exactly the right one's similarity.
    predicted: the most similar class. probability: of that class, by the model's own softmax. margin: the last
    class's similarity less the first's, which a ROC curve of two classes is drawn over.
    """

    target: Integers
    ranks: Integers
    tied: Flags
    predicted: Integers
    probability: Floats
    margin: Floats

    def only(self, part: Flags) -> "Answers":
        """Return the answers for those images."""
        return Answers._make(values[part] for values in self)


def answers(images: Vectors, weights: Tensor, target: Integers, scale: float) -> Answers:
    """Return what the classifier `weights` (embed_dim, classes) says of images (n, embed_dim), both of unit length.

    target: (n,), each image's right class. scale: what similarities are multiplied by before the softmax.
    """
    matrix = weights.numpy()
    return _answers(lambda part: images[part] @ matrix, target, scale)


def likeliest(likelihoods: Vectors, target: Integers) -> Answers:
    """Return the `answers` of a model that gives log p of each class's text, (n, classes), for each image."""
    return _answers(lambda part: likelihoods[part], target, 1.0)


def _answers(similarities: Callable[[slice], Vectors], target: Integers, scale: float) -> Answers:
    def of(part: slice) -> Answers:
        similarity = similarities(part)
        columns = np.arange(similarity.shape[1])
        wanted = target[part, None]
        right = np.take_along_axis(similarity, wanted, axis=1)
        equal = similarity == right
        ahead = (similarity > right) | (equal & (columns < wanted))
        odds = np.exp(scale * (similarity - similarity.max(axis=1, keepdims=True)))
        return Answers(
            target=target[part],
            ranks=np.count_nonzero(ahead, axis=1),
            tied=np.count_nonzero(equal, axis=1) > 1,
            predicted=similarity.argmax(axis=1),
            probability=1 / odds.sum(axis=1),
            margin=similarity[:, -1] - similarity[:, 0],
        )

    # Not all images with all classes at once: 50,000 times 1,000 similarities are 200 MB, and more on the way.
    parts = [of(slice(start, start + _IMAGES_AT_ONCE)) for start in range(0, len(target), _IMAGES_AT_ONCE)]
    return Answers._make(map(np.concatenate, zip(*parts, strict=True)))


def values_of_images(said: Answers, headline: str) -> dict[str, Floats]:
    """Return, (n,) for each metric that is a mean over images, what each of them scores in it, in 0..1.

    `mean_top1_top5` is there when it is the headline.
    """
    top1 = (said.ranks < 1).astype(np.float32)
    top5 = (said.ranks < 5).astype(np.float32)
    values: dict[str, Floats] = {"top1": top1, "top5": top5}
    if headline == "mean_top1_top5":
        values["mean_top1_top5"] = (top1 + top5) * np.float32(0.5)
    return values


def outcomes_of(
    said: Answers,
    headline: str,
    *,
    keys: tuple[str, ...],
    labels: tuple[str, ...],
    positions: tuple[int, ...],
) -> Outcomes:
    """Return what became of each image; the fields are those of `Outcomes`."""
    return Outcomes(
        keys=keys,
        scores=values_of_images(said, headline),
        labels=labels,
        target=said.target,
        predicted=said.predicted,
        probability=said.probability,
        positions=positions,
    )


def score_answers(said: Answers, classes: int, headline: str) -> Scores:
    """Return every metric of the answers, the headline first.

    classes: of the classifier, of which the images may show fewer.

    Two classes have a `roc_auc` as well, of the second class's logit minus the first's. `mean_top1_top5` is there
    when it is the headline. `chance` is guessing; `majority` is always saying the most frequent class. `tied` is
    the share of images for which a wrong class has exactly the right one's similarity; ties go to the class that
    is listed first. Intervals are Wilson's over images, and the bootstrap's for the two metrics above.
    """
    count = len(said.target)
    correct = said.ranks < 1
    values = values_of_images(said, headline)
    metrics = {name: float(np.mean(value, dtype=np.float64)) for name, value in values.items()}
    metrics["mean_per_class"] = mean_per_class(correct, said.target)
    chance = {"top1": 1 / classes, "top5": min(1.0, 5 / classes), "mean_per_class": 1 / classes}
    confidence = {
        "top1": wilson(metrics["top1"], count),
        "top5": wilson(metrics["top5"], count),
        "mean_per_class": mean_per_class_interval(correct, said.target),
    }
    if "mean_top1_top5" in values:
        confidence["mean_top1_top5"] = mean_interval(values["mean_top1_top5"])
        chance["mean_top1_top5"] = (chance["top1"] + chance["top5"]) / 2
    # A group may show one of the two classes only.
    if classes == 2 and len(np.unique(said.target)) == 2:
        metrics["roc_auc"] = roc_auc(said.margin, said.target == 1)
        confidence["roc_auc"] = roc_auc_interval(said.margin, said.target == 1)
        chance["roc_auc"] = 0.5
    metrics["tied"] = float(np.mean(said.tied))
    chance["majority"] = float(np.bincount(said.target).max() / count)
    if headline in metrics:
        metrics = {str(headline): metrics[headline], **metrics}
    return Scores(count=count, metrics=metrics, confidence=confidence, chance=chance)


def check_headline(headline: str, classes: int, seen: Collection[str], where: str) -> None:
    """Check that a metric can be measured on images of so many classes.

    seen: the classes that images show. where: the data, for the message.

    Raises:
        SettingsError: the metric is unknown, or does not fit the number of classes.
        DataError: it compares two classes, and the images show one.
    """
    if headline not in get_args(Headline):
        raise SettingsError(f"metric {headline!r}: {nearest(headline, get_args(Headline))}")
    if headline != "roc_auc":
        return
    if classes != 2:
        raise SettingsError(f"metric 'roc_auc': needs two classes, and there are {classes}; choose top1")
    if len(seen) != 2:
        raise DataError(
            f"{where}: every image has the label {min(seen)!r}; the metric roc_auc compares two classes"
        )
