"""Held-out pictures on the page of a captioner's run: what it writes of them, and their true captions."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from diptych.data.images.decoding import read_rgb
from diptych.data.images.thumbnails import MEDIA_TYPE, preview
from diptych.data.sources.opening import open_source
from diptych.errors import CheckpointError, DataError
from diptych.evaluation.generated_captions import write_captions
from diptych.pretrained import load
from diptych.tokenizer import default_tokenizer
from diptych.training.saving.layout import MODEL
from diptych.training.saving.run_state import newest_whole

COUNT = 8  # pictures that are shown
_BEAMS = 5  # as `diptych caption` has them


@dataclass(frozen=True)
class Captioned:
    """A held-out picture, what the model wrote of it, and what it is said to show."""

    thumbnail: bytes  # of `MEDIA_TYPE`
    written: str
    truths: Sequence[str]  # at least one

    @property
    def exact(self) -> bool:
        """Whether it is one of the true captions, word for word; the vocabulary knows no capitals and no spaces."""
        encode = default_tokenizer().encode
        return encode(self.written) in map(encode, self.truths)


def caption_held_out(run: Path, data: str, progress: Callable[[int], None] | None = None) -> list[Captioned]:
    """What the model of a run writes of pictures from all over `data`, by beam search.

    The run's result, or where it is not done yet, its newest checkpoint. progress: takes the number of images done.

    Raises:
        CheckpointError: the run has neither.
        DataError: the data cannot be opened, or none of the chosen pictures has a caption.
        ImageError: a picture cannot be read.
        SettingsError: the model writes no captions.
    """
    source = open_source(data)
    count = min(COUNT, len(source))
    rows = [source[place * len(source) // count] for place in range(count)]
    rows = [row for row in rows if row.captions]
    if not rows:
        raise DataError(f"{source.name}: the {count} pictures that were looked at have no captions")
    model, preprocess = load(str(_newest_model(run)), device="cpu")
    images = [row.image for row in rows]
    written = write_captions(model, preprocess, images, beams=_BEAMS, progress=progress)
    return [
        Captioned(preview(read_rgb(row.image)).thumbnail, answer["caption"], row.captions)
        for row, answer in zip(rows, written, strict=True)
    ]


def captions_section(shown: Sequence[Captioned], data: str) -> str:
    """The pictures as HTML, with everything inside."""
    exact = sum(each.exact for each in shown)
    cards = "".join(map(_card, shown))
    return (
        '<h2>Captions of held-out pictures</h2><p class="hint">Written by beam search with '
        f"{_BEAMS} beams, for pictures of <code>{escape(data)}</code>; {exact} of {len(shown)} word for word.</p>"
        f'<div class="captions">{cards}</div>'
    )


def missing_captions(reason: str) -> str:
    """What stands in the place of the pictures where they could not be captioned."""
    return f'<h2>Captions of held-out pictures</h2><p class="notice">{escape(reason)}</p>'


def _card(each: Captioned) -> str:
    picture = base64.b64encode(each.thumbnail).decode("ascii")
    truth = each.truths[0]
    said = "<dt>true</dt><dd>the same</dd>" if each.exact else f"<dt>true</dt><dd>{escape(truth)}</dd>"
    return (
        f'<figure class="panel"><img src="data:{MEDIA_TYPE};base64,{picture}" alt="{escape(truth)}">'
        f"<figcaption><dl><dt>written</dt><dd><b>{escape(each.written) or '(nothing)'}</b></dd>{said}</dl></figcaption>"
        "</figure>"
    )


def _newest_model(run: Path) -> Path:
    if (run / MODEL / "diptych.json").is_file():
        return run / MODEL
    newest, _ = newest_whole(run)
    if newest is None:
        raise CheckpointError(f"{run}: no model and no whole checkpoint yet, to write captions with")
    return newest
