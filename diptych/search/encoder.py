"""Embed images and queries with the model of an index."""

from collections.abc import Iterable, Iterator, Sequence

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source
from diptych.embed.encode import ImageInput, Vectors, embed_images, embed_texts
from diptych.embed.source_rows import EmbeddedBatch, embed_source
from diptych.models.image_model import ImageModel
from diptych.pretrained import fingerprint


class Encoder:
    """A model with its preprocessing, its name for messages, and the fingerprint that an index records."""

    def __init__(self, model: ImageModel, preprocess: Preprocess, name: str, *, batch_size: int = 64) -> None:
        self.name = name
        self.fingerprint = fingerprint(model, preprocess)
        self.dim = model.architecture.embed_dim
        self._model = model
        self._preprocess = preprocess
        self._batch_size = batch_size

    def rows(
        self, source: Source, positions: Iterable[int], *, previews: bool = False
    ) -> Iterator[EmbeddedBatch]:
        """Yield unit-length embeddings of rows of a source, in order; see `embed_source`."""
        return embed_source(
            self._model,
            self._preprocess,
            source,
            positions=positions,
            batch_size=self._batch_size,
            previews=previews,
        )

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit-length embeddings (n, dim) of texts; see `embed_texts`."""
        return embed_texts(self._model, texts)

    def images(self, images: Sequence[ImageInput]) -> Vectors:
        """Return unit-length embeddings (n, dim) of images; see `embed_images`."""
        return embed_images(self._model, self._preprocess, images, batch_size=self._batch_size)
