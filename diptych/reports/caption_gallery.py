"""Held-out images on the page of a captioner's run: what it writes of them, and their true captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.data.images.decoding import read_rgb
from diptych.data.images.thumbnails import MEDIA_TYPE, preview
from diptych.data.sources.opening import open_source
from diptych.errors import CheckpointError, DataError
from diptych.evaluation.generated_captions import write_captions
from diptych.pretrained import load
from diptych.reports.page_parts import PageImage
from diptych.tokenizer import default_tokenizer
from diptych.training.saving.layout import MODEL
from diptych.training.saving.run_state import newest_whole

COUNT = 8  # images that are shown
_BEAMS = 5  # as `diptych caption` has them


@dataclass(frozen=True)
class Captioned:
    """A held-out image, what the model wrote of it, and its true captions, at least one."""

    thumbnail: bytes  # of `MEDIA_TYPE`
    written: str
    truths: Sequence[str]

    @property
    def exact(self) -> bool:
        """Whether it is one of the true captions, word for word; the vocabulary knows no capitals and no spaces."""
        encode = default_tokenizer().encode
        return encode(self.written) in map(encode, self.truths)

    @property
    def image(self) -> PageImage:
        return PageImage(self.thumbnail, self.truths[0], media_type=MEDIA_TYPE)


@dataclass(frozen=True)
class Gallery:
    """The captioned images of `data`, or the reason why there are none."""

    data: str
    shown: Sequence[Captioned] = ()
    reason: str = ""
    beams: int = _BEAMS

    @property
    def exact(self) -> int:
        return sum(each.exact for each in self.shown)


def caption_held_out(run: Path, data: str, progress: Callable[[int], None] | None = None) -> Gallery:
    """Write captions of images from all over `data`, by beam search, with the model of a run.

    The model is the run's result or, where it is not done yet, its newest checkpoint. progress: takes the number of
    images done.

    Raises:
        CheckpointError: the run has neither.
        DataError: the data cannot be opened, or none of the chosen images has a caption.
        ImageError: an image cannot be read.
        SettingsError: the model writes no captions.
    """
    source = open_source(data)
    count = min(COUNT, len(source))
    rows = [source[place * len(source) // count] for place in range(count)]
    rows = [row for row in rows if row.captions]
    if not rows:
        raise DataError(
            f"{source.name}: the {count} images that were looked at have no captions; name data with captions"
        )
    model, preprocess = load(str(_newest_model(run)), device="cpu")
    images = [row.image for row in rows]
    written = write_captions(model, preprocess, images, beams=_BEAMS, progress=progress)
    shown = [
        Captioned(preview(read_rgb(row.image)).thumbnail, answer["caption"], row.captions)
        for row, answer in zip(rows, written, strict=True)
    ]
    return Gallery(data, shown)


def _newest_model(run: Path) -> Path:
    if (run / MODEL / "diptych.json").is_file():
        return run / MODEL
    newest, _ = newest_whole(run)
    if newest is None:
        raise CheckpointError(
            f"{run}: no model and no whole checkpoint yet to write captions with; report again after the next one"
        )
    return newest
