"""What is fine-tuned on, and what is measured: emoji by their group, sixteen of each, and Fashion-MNIST, in folders."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from diptych.data.example import Example
from diptych.data.sources.opening import Source, open_source
from diptych.evaluation.datasets.benchmark import default_root, open_benchmark

GROUPS = (
    "activities", "animals & nature", "flags", "food & drink", "objects", "people & body", "smileys & emotion",
    "symbols", "travel & places",
)  # fmt: skip
FASHION = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

Pair = tuple[Example, str]  # and its class


@dataclass(frozen=True)
class Size:
    """trained, tested, shots: pictures a class at most. views: pictures seen in a training, repeated ones included."""

    trained: int
    tested: int
    shots: int
    views: int
    seeds: int
    alphas: tuple[float, ...]  # between the ends


FULL = Size(trained=100, tested=50, shots=16, views=2_400, seeds=3, alphas=(0.25, 0.5, 0.75))
QUICK = Size(trained=8, tested=4, shots=4, views=64, seeds=1, alphas=(0.5,))


@dataclass(frozen=True)
class Set:
    """Folders with a folder a class; captions: one folder with a text beside each picture.

    shift: the classes as other designers draw them. others: zero-shot tasks that are not trained on.
    """

    train: Path
    test: Path
    captions: Path | None
    shift: Path | None
    others: dict[str, str]


def build_sets(folder: Path, corpus: Path | None, size: Size) -> dict[str, Set]:
    """The three sets by name, their pictures written into `folder` unless it is there.

    corpus: the starter corpus. Without it, which of two designers drew a picture of the bundled sample: nothing that
    anybody wants to know, but it needs no files.
    """
    if not folder.exists():
        half = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(half, ignore_errors=True)
        if corpus is None:
            _write_sample(half, size)
        else:
            _write_emoji(half, corpus, size)
            _write_classes(_first(_fashion("train"), size.trained, len(FASHION)), half / "fashion")
            _write_classes(_first(_fashion("test"), size.tested, len(FASHION)), half / "fashion-test")
        half.rename(folder)
    names = {"names": "sample:test"}
    train, test, captions, shift = (
        folder / part for part in ("emoji", "emoji-test", "captions", "emoji-shift")
    )
    if corpus is None:
        return {"emoji": Set(train, test, captions, shift, names)}
    fashion = folder / "fashion-test"
    others = {"clothes": str(fashion), **names}
    return {
        "emoji": Set(train, test, captions, shift, others),
        "emoji-few": Set(folder / "emoji-few", test, folder / "captions-few", shift, others),
        "fashion": Set(folder / "fashion", fashion, None, None, {"groups": str(test), **names}),
    }


def _write_emoji(folder: Path, corpus: Path, size: Size) -> None:
    shards = [open_source(shard) for shard in sorted(corpus.glob("train-*.tar"))]
    drawn = [pair for shard in shards for pair in _by_group(shard)]
    # By the concept, so that none is drawn in both parts.
    learned = [pair for pair in drawn if not _is_tested(pair[0])]
    for most, ending in ((size.trained, ""), (size.shots, "-few")):
        chosen = _first(learned, most)
        _write_classes(chosen, folder / f"emoji{ending}")
        _write_captions(chosen, folder / f"captions{ending}")
    shifted = _by_group(open_source(corpus / "eval-emoji-vendor-shift.tar"))
    for pairs, name in ((drawn, "emoji-test"), (shifted, "emoji-shift")):
        _write_classes(_first((pair for pair in pairs if _is_tested(pair[0])), size.tested), folder / name)


def _write_sample(folder: Path, size: Size) -> None:
    drawn = list(_by_designer(open_source("sample:train")))
    # Designers take turns in the sample.
    learned = _first((pair for number, pair in enumerate(drawn) if number % 4 < 2), size.trained)
    _write_classes(learned, folder / "emoji")
    _write_captions(learned, folder / "captions")
    for name in ("emoji-test", "emoji-shift"):
        others = (pair for number, pair in enumerate(drawn) if number % 4 > 1)
        _write_classes(_first(others, size.tested), folder / name)


def _by_group(source: Source) -> Iterator[Pair]:
    for example in map(source.__getitem__, range(len(source))):
        group = example.metadata.get("group")
        if group in GROUPS:
            yield example, str(group)


def _by_designer(source: Source) -> Iterator[Pair]:
    for example in map(source.__getitem__, range(len(source))):
        vendor = example.metadata.get("vendor")
        if vendor in ("noto", "twemoji"):
            yield example, str(vendor)


def _fashion(part: str) -> Iterator[Pair]:
    source = open_benchmark("fashion_mnist", default_root(), part).source
    for example in map(source.__getitem__, range(len(source))):
        yield example, FASHION[int(str(example.label))]


def _is_tested(example: Example) -> bool:
    """Whether a concept, and with it every drawing of it, is kept for tests: a fifth are."""
    return int(sha256(str(example.group).encode()).hexdigest(), 16) % 5 == 0


def _first(pairs: Iterable[Pair], most: int, classes: int | None = None) -> list[Pair]:
    """The first `most` of each class. classes: how many, where known: reading ends when all have as many."""
    counts: Counter[str] = Counter()
    chosen = []
    for pair in pairs:
        if counts[pair[1]] < most:
            counts[pair[1]] += 1
            chosen.append(pair)
            if classes is not None and counts.total() == classes * most:
                break
    return chosen


def _write_classes(pairs: Iterable[Pair], folder: Path) -> None:
    for number, (example, label) in enumerate(pairs):
        _write_picture(example, folder / label.replace(" ", "_"), number)


def _write_captions(pairs: Iterable[Pair], folder: Path) -> None:
    """The same pictures with what is drawn as a text beside each, and no classes."""
    for number, (example, _) in enumerate(pairs):
        _write_picture(example, folder, number).with_suffix(".txt").write_text(example.captions[0], "utf-8")


def _write_picture(example: Example, folder: Path, number: int) -> Path:
    image = example.image if isinstance(example.image, bytes) else example.image.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{number:05d}{'.webp' if image[8:12] == b'WEBP' else '.png'}"
    file.write_bytes(image)
    return file
