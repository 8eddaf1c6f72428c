"""Which text of a pair is shown: its fields joined, one of its sentences, its tags."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diptych.errors import SettingsError

# After a full stop, an exclamation mark or a question mark, and at line breaks.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")


@dataclass(frozen=True, kw_only=True)
class TextSampling:
    """How the text of a pair is drawn from its captions and its tags; the first three are probabilities."""

    caption: float = 1.0  # the caption alone; always so where there are no tags
    caption_and_tags: float = 0.0  # the caption and some tags; what is left over is tags alone
    sentence: float = 0.0  # one sentence of the caption, each as likely, in place of all (ConVIRT's t_u: 1)
    most_tags: int = 3  # that are drawn at once, from one on
    join: tuple[str, ...] = ()  # metadata fields whose text follows each caption, where they have any (WIT)
    # Whether texts that say left or right may have their picture mirrored; the task then exchanges the two words.
    exchange_sides: bool = False

    def __post_init__(self) -> None:
        shares = (self.caption, self.caption_and_tags, self.sentence)
        if not all(0 <= share <= 1 for share in shares) or self.caption + self.caption_and_tags > 1 + 1e-9:
            raise SettingsError(
                f"[data] text: caption = {self.caption}, caption_and_tags = {self.caption_and_tags} and sentence = "
                f"{self.sentence} are probabilities, 0..1, and the first two together at most 1"
            )
        if self.most_tags < 1:
            raise SettingsError(f"[data] text: most_tags = {self.most_tags}: at least 1")


def joined(captions: Sequence[str], metadata: Mapping[str, Any], fields: Sequence[str]) -> tuple[str, ...]:
    """Each caption with the texts of those fields behind it; their texts alone where there is no caption.

    A field that an example lacks, that is empty, or that says what the caption says, is left out.
    """
    texts = [str(metadata[name]).strip() for name in fields if metadata.get(name) is not None]
    found = []
    for caption in captions or ("",):
        parts = [part for part in (caption, *(text for text in texts if text != caption)) if part]
        # Each ends like a sentence but the last, which stays as it is.
        found.append(" ".join([*map(_ended, parts[:-1]), *parts[-1:]]))
    return tuple(text for text in found if text)


def sentences(text: str) -> list[str]:
    """The sentences of a text, which end with `.`, `!` or `?` and a space, or with the line; at least one."""
    found = [part.strip() for part in _SENTENCE_END.split(text)]
    return [part for part in found if part] or [text]


def sample_text(
    captions: Sequence[str], tags: Sequence[str], settings: TextSampling, chance: npt.NDArray[np.float64]
) -> str:
    """One text of a pair. chance: (4,) uniform random numbers."""
    place = chance[0] * len(captions)
    caption = captions[int(place)]
    # One number serves again: what is left of it is uniform, whichever caption it chose; and so once more below.
    left = place - int(place)
    if left < settings.sentence:
        parts = sentences(caption)
        caption = parts[min(len(parts) - 1, int(left / settings.sentence * len(parts)))]
    if not tags or chance[1] < settings.caption:
        return caption
    # A run of tags from a random start: each tag is as likely as the others.
    count = min(1 + int(chance[2] * settings.most_tags), len(tags))
    start = int(chance[3] * len(tags))
    chosen = [tags[(start + step) % len(tags)] for step in range(count)]
    if chance[1] < settings.caption + settings.caption_and_tags:
        chosen.insert(0, caption)
    return ", ".join(chosen)


def _ended(part: str) -> str:
    return part if part[-1] in ".!?:;," else f"{part}."
