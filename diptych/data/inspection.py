"""Count what is in a source: formats, sizes, lengths of captions, duplicates."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.data.examination import Failure, Finding, examine
from diptych.data.example import Example
from diptych.data.images.decoding import Header, read_header
from diptych.data.sources.opening import Source
from diptych.data.subsets.same_images import neighbouring_rows
from diptych.data.text_sampling import group_id

_SHOWN = 160  # characters of a caption among the sample rows


@dataclass(frozen=True)
class Range:
    """The least, median, mean and greatest of some numbers."""

    least: float
    median: float
    mean: float
    greatest: float


@dataclass(frozen=True)
class Inspection:
    """The figures of the examined rows.

    count: the rows of the source. looked_at: the examined rows, in evenly spread runs; the other figures cover them.
    bad: the rows that cannot be read, by reason; only the headers of images are read.
    formats: the number of images per format. width, height, file_bytes: of the images; None if none can be read.
    without_caption: the rows without one. tokens: per caption, start and end included; None without captions.
    too_long: the captions, among `captions`, with more tokens than `context_length`.
    same_images: the rows whose image file equals that of an earlier row, byte for byte.
    differing_labels: the images that two rows label differently. first_differing: one of them, with its labels.
    same_captions: the rows whose first caption equals that of an earlier row, but for case and spaces.
    rows: a few rows, described one by one.
    """

    count: int
    looked_at: int
    bad: dict[str, int]
    formats: dict[str, int]
    width: Range | None
    height: Range | None
    file_bytes: Range | None
    without_caption: int
    captions: int
    tokens: Range | None
    context_length: int
    too_long: int
    same_images: int
    differing_labels: int
    same_captions: int
    rows: list[dict[str, Any]]
    first_differing: dict[str, Any] | None = None


def inspect_source(
    source: Source,
    count_tokens: Callable[[str], int],
    *,
    most: int = 10_000,
    shown: int = 3,
    context_length: int = 77,
    workers: int = 2,
    progress: Callable[[int], None] = lambda _: None,
) -> Inspection:
    """Examine up to `most` rows of a source, chosen by `neighbouring_rows`.

    count_tokens: returns the number of tokens of a caption, start and end included.
    shown: the number of rows to describe one by one.
    progress: receives the number of rows done since the last call.
    """
    positions = neighbouring_rows(len(source), most)
    good: list[Finding[Header]] = []
    bad: Counter[str] = Counter()
    for found in examine(source, _look, positions=positions, workers=workers, need_caption=False):
        if isinstance(found, Failure):
            bad[found.reason] += 1
        else:
            good.append(Finding(found.position, _without_image(found.example), found.found))
        progress(1)
    headers = [row.found for row in good]
    captions = [caption for row in good for caption in row.example.captions]
    tokens = [count_tokens(caption) for caption in captions]
    first = [row.example.captions[0] for row in good if row.example.captions]
    few = min(shown, len(good))
    # By image: its labels, each with the key of its first row.
    labels: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in good:
        if row.example.label is not None:
            labels[row.found.sha256].setdefault(row.example.label, row.example.key)
    differing = [rows for rows in labels.values() if len(rows) > 1]
    return Inspection(
        count=len(source),
        looked_at=len(positions),
        bad=dict(bad.most_common()),
        formats=dict(Counter(header.format for header in headers).most_common()),
        width=_range([header.width for header in headers]),
        height=_range([header.height for header in headers]),
        file_bytes=_range([header.file_bytes for header in headers]),
        without_caption=len(good) - len(first),
        captions=len(captions),
        tokens=_range(tokens),
        context_length=context_length,
        too_long=sum(count > context_length for count in tokens),
        same_images=len(good) - len({header.sha256 for header in headers}),
        differing_labels=len(differing),
        same_captions=len(first) - len(set(map(group_id, first))),
        rows=[_described(good[row * len(good) // few]) for row in range(few)],
        first_differing=(
            {"key": next(iter(differing[0].values())), "labels": list(differing[0])} if differing else None
        ),
    )


def _look(example: Example) -> Header:
    return read_header(example.image)


def _without_image(example: Example) -> Example:
    """Return the example without the bytes of its image, because thousands are held in memory."""
    return Example(example.key, b"", example.captions, example.tags, example.label, example.group)


def _described(row: Finding[Header]) -> dict[str, Any]:
    header = row.found
    return {
        "row": row.position,
        "key": row.example.key,
        "format": header.format,
        "width": header.width,
        "height": header.height,
        "captions": [caption[:_SHOWN] for caption in row.example.captions],
        "tags": list(row.example.tags),
        "label": row.example.label,
    }


def _range(values: list[int]) -> Range | None:
    if not values:
        return None
    return Range(min(values), float(np.median(values)), float(np.mean(values)), max(values))
