"""The story of `diptych demo` as data: what was trained, measured, classified and searched."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DemoImage:
    """An image file's bytes and what may be said about it."""

    data: bytes
    media_type: str  # "image/webp"
    caption: str
    credit: str  # author and licence


@dataclass(frozen=True)
class Accuracy:
    """One row of the table: the model's name, and its accuracy in the first answer and among five, 0..1."""

    who: str
    top1: float
    top5: float
    interval: tuple[float, float] | None = None  # of top1


@dataclass(frozen=True)
class DemoAnswer:
    """A classified image: its true class, and the classes that the model found likeliest."""

    image: DemoImage
    truth: str
    guesses: Sequence[tuple[str, float]]  # label, probability; the best first


@dataclass(frozen=True)
class DemoSearch:
    """A query in words and the best images, with their cosine similarity."""

    query: str
    images: Sequence[tuple[DemoImage, float]]


@dataclass(frozen=True)
class Story:
    """Everything that the page tells."""

    pairs: int  # that the fresh model was trained on
    seconds: float  # of its training
    batch_size: int
    losses: Sequence[tuple[int, float]]  # step, loss
    task: str  # what was measured, in a sentence
    accuracies: Sequence[Accuracy]  # chance last
    answers: Sequence[DemoAnswer]
    searches: Sequence[DemoSearch]
    next_steps: Sequence[tuple[str, str]]  # command, what it does
