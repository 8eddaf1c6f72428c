"""Draw the text of a pair: joined fields, one of its sentences, or its tags."""

import hashlib
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
    """Settings that draw the text of a pair from its captions and its tags; the first three are probabilities."""

    caption: float = 1.0  # the caption alone; always, if there are no tags
    caption_and_tags: float = 0.0  # the caption and some tags; what is left over is tags alone
    sentence: float = 0.0  # one sentence of the caption, drawn uniformly, in place of all (ConVIRT's t_u: 1)
    most_tags: int = 3  # tags drawn at once: 1 to this many
    join: tuple[str, ...] = ()  # metadata fields whose text follows each caption (WIT)
    # Whether images whose texts say left or right may be mirrored; the task then exchanges the two words.
    exchange_sides: bool = False

    def __post_init__(self) -> None:
        shares = (self.caption, self.caption_and_tags, self.sentence)
        if not all(0 <= share <= 1 for share in shares) or self.caption + self.caption_and_tags > 1 + 1e-9:
            raise SettingsError(
                f"[data] text: caption = {self.caption}, caption_and_tags = {self.caption_and_tags}, sentence = "
                f"{self.sentence}; expected probabilities, 0..1, the first two together at most 1"
            )
        if self.most_tags < 1:
            raise SettingsError(f"[data] text: most_tags = {self.most_tags}; expected at least 1")


def join_fields(
    captions: Sequence[str], metadata: Mapping[str, Any], fields: Sequence[str]
) -> tuple[str, ...]:
    """Append the texts of some metadata fields to each caption; without a caption, return their texts alone.

    A field is skipped if the example lacks it, if it is empty, or if it equals the caption.
    """
    texts = [str(metadata[name]).strip() for name in fields if metadata.get(name) is not None]
    found = []
    for caption in captions or ("",):
        parts = [part for part in (caption, *(text for text in texts if text != caption)) if part]
        # Each part but the last gets the end of a sentence.
        found.append(" ".join([*map(_end_sentence, parts[:-1]), *parts[-1:]]))
    return tuple(text for text in found if text)


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences, which end with `.`, `!` or `?` and a space, or with the line; at least one."""
    found = [part.strip() for part in _SENTENCE_END.split(text)]
    return [part for part in found if part] or [text]


def sample_text(
    captions: Sequence[str], tags: Sequence[str], settings: TextSampling, chance: npt.NDArray[np.float64]
) -> str:
    """Draw one text of a pair. chance: (4,) uniform random numbers."""
    scaled = chance[0] * len(captions)
    caption = captions[int(scaled)]
    # The fractional part is uniform again, whichever caption was chosen; and so once more below.
    left = scaled - int(scaled)
    if left < settings.sentence:
        parts = split_sentences(caption)
        caption = parts[min(len(parts) - 1, int(left / settings.sentence * len(parts)))]
    if not tags or chance[1] < settings.caption:
        return caption
    # A run of tags from a random start gives each tag the same probability.
    count = min(1 + int(chance[2] * settings.most_tags), len(tags))
    start = int(chance[3] * len(tags))
    chosen = [tags[(start + step) % len(tags)] for step in range(count)]
    if chance[1] < settings.caption + settings.caption_and_tags:
        chosen.insert(0, caption)
    return ", ".join(chosen)


def _end_sentence(part: str) -> str:
    return part if part[-1] in ".!?:;," else f"{part}."


def group_id(caption: str) -> int:
    """Hash a caption to 64 bits, equal for captions that differ only in case and spaces."""
    normal = " ".join(caption.casefold().split())
    digest = hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
