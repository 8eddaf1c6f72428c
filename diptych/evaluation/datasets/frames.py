"""Readers of the two natural-shift sets made of video frames, and the anchors that their rule is about."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.data.sources.opening import Source
from diptych.errors import DataError
from diptych.evaluation.datasets.listed_images import ListedImages, Row, read_text
from diptych.evaluation.robustness.natural_shift import Anchor

_LABELS = "labels"
_NEAR = "near"


def robust_frames(folder: Path, split: str) -> Source:
    """Read ImageNet-Vid-Robust (Shankar et al. 2021): `pmsets.json` and `labels.json` in `metadata` name the frames.

    `pmsets.json` gives each anchor frame the confirmed frames near it, `labels.json` each frame the numbers of its
    classes. YouTube-BB-Robust is read in the same form; its own release has review files instead, from which the
    testbed of Taori et al. makes these two tables.
    """
    file = folder / "metadata" / "pmsets.json"
    near = _object(file)
    classes = _object(folder / "metadata" / "labels.json")
    frames = dict.fromkeys([*near, *(frame for frames in near.values() for frame in frames)])
    rows = []
    for frame in frames:
        if frame not in classes:
            raise DataError(
                f"{folder / 'metadata' / 'labels.json'}: no labels for {frame!r}, which pmsets.json names"
            )
        metadata: dict[str, Any] = {_LABELS: tuple(int(number) for number in classes[frame])}
        if frame in near:
            metadata[_NEAR] = tuple(str(other) for other in near[frame])
        rows.append(Row(frame, metadata=metadata))
    return ListedImages(folder, rows, str(file))


def anchors_of(source: Source) -> list[Anchor]:
    """Return the anchors among the frames of `robust_frames`, by their rows, as `frame_accuracy` takes them."""
    frames = [source[position] for position in range(len(source))]
    place = {frame.key: position for position, frame in enumerate(frames)}
    anchors = []
    for position, frame in enumerate(frames):
        if _NEAR in frame.metadata:
            # A frame may be listed among its own neighbours.
            rows = tuple(place[key] for key in frame.metadata[_NEAR] if key != frame.key)
            anchors.append(
                Anchor(
                    frame=position,
                    near=rows,
                    labels=frame.metadata[_LABELS],
                    near_labels=tuple(frames[row].metadata[_LABELS] for row in rows),
                )
            )
    return anchors


def _object(file: Path) -> Mapping[str, list[Any]]:
    """Return a JSON object of lists."""
    try:
        value = json.loads(read_text(file))
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON ({error}); unpack the dataset again") from None
    if not isinstance(value, dict) or not all(isinstance(item, list) for item in value.values()):
        raise DataError(f"{file}: expected a JSON object that gives each frame a list")
    return value
