"""The model of an index: pictures and questions into its vectors."""

from collections.abc import Iterable, Iterator

import numpy as np

from diptych.data.sources import Source
from diptych.data.transforms import Preprocess
from diptych.embed import EmbeddedBatch, Picture, Vectors, embed_images, embed_source, embed_texts
from diptych.errors import SettingsError
from diptych.models.clip import CLIP
from diptych.pretrained import fingerprint


class Encoder:
    """A model with its preprocessing, its name for messages, and the fingerprint that an index remembers."""

    def __init__(self, model: CLIP, preprocess: Preprocess, name: str, *, batch_size: int = 64) -> None:
        self.name = name
        self.fingerprint = fingerprint(model, preprocess)
        self.dim = model.architecture.embed_dim
        self._model = model
        self._preprocess = preprocess
        self._batch_size = batch_size

    def images(
        self, source: Source, positions: Iterable[int], *, previews: bool = False
    ) -> Iterator[EmbeddedBatch]:
        """Unit-length embeddings of those rows of a source, in order; see `embed_source`."""
        return embed_source(
            self._model,
            self._preprocess,
            source,
            positions=positions,
            batch_size=self._batch_size,
            previews=previews,
        )

    def query(self, *, text: str | None = None, image: Picture | None = None) -> Vectors:
        """The unit-length vector (dim,) of a question: a text, a picture, or both.

        Both: the sum of the two unit vectors, brought to unit length again.

        Raises:
            SettingsError: neither is given. TextError, ImageError: one cannot be read.
        """
        parts = []
        if text is not None:
            parts.append(embed_texts(self._model, [text])[0])
        if image is not None:
            parts.append(embed_images(self._model, self._preprocess, [image])[0])
        if not parts:
            raise SettingsError("nothing to search for; give words, an image, or both")
        total = np.sum(parts, axis=0)
        unit: Vectors = total / np.linalg.norm(total)
        return unit
