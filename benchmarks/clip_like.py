"""Vectors for benchmarks of search: any number of image embeddings, and questions of both kinds, from a seed.

Real embeddings give the places: every picture of the bundled sample through the image tower of diptych-mini, every
caption and tag through its text tower, carried into more dimensions by one random rotation, which keeps all angles.
A made image lies around a real one, some of which have many and most few (Zipf); its difference from it has a
spectrum that falls like that of published embeddings, so that no handful of directions holds everything.

Questions are images that are not in the collection, and texts straight from the text tower: these lie apart from all
images (their best cosine is far below 1), which is where approximate search is tried.
"""

import numpy as np
from numpy.typing import NDArray

from diptych.data.sources.opening import open_source
from diptych.embed.encode import embed_texts
from diptych.embed.source_rows import embed_source
from diptych.pretrained import load

Floats = NDArray[np.float32]
Half = NDArray[np.float16]

_ZIPF = 0.8  # the popularity of the r-th place falls as r ** -_ZIPF
_SPREAD = 0.75  # length of the difference from the real image, which has length 1
_SPECTRUM = 0.5  # the k-th direction of the difference has a deviation of k ** -_SPECTRUM
_CHUNK = 65_536


def real_embeddings(*names: str) -> tuple[Floats, Floats]:
    """Return unit-length embeddings of the images of these sources (n, 256), and of their captions and tags (m, 256).

    Without names, those of all bundled images.
    """
    model, preprocess = load("diptych-mini")
    images, words = [], []
    for name in names or ("sample:train", "sample:test"):
        source = open_source(name)
        for batch in embed_source(model, preprocess, source):
            images.append(batch.vectors)
            words += [text for example in batch.examples for text in (*example.captions, *example.tags)]
    return np.concatenate(images), embed_texts(model, list(dict.fromkeys(words)), truncate=True)


class Collection:
    """`count` image embeddings (dim,) in half precision, and questions to them."""

    def __init__(self, count: int, dim: int, seed: int, real: tuple[Floats, Floats]) -> None:
        self.count, self.dim, self._seed = count, dim, seed
        dice = np.random.default_rng(seed)
        rotation = np.linalg.qr(dice.normal(size=(dim, real[0].shape[1])))[0].astype(np.float32)
        self._places, self._texts = (part @ rotation.T for part in real)
        popularity = np.arange(1, len(self._places) + 1) ** -_ZIPF
        self._popularity = dice.permutation(popularity / popularity.sum())
        deviations = np.arange(1, dim + 1) ** -_SPECTRUM
        deviations *= _SPREAD / np.linalg.norm(deviations)
        # The directions that vary most are random ones, the same for every image.
        self._mixing = (np.linalg.qr(dice.normal(size=(dim, dim)))[0] * deviations).astype(np.float32)

    def images(self) -> Half:
        """(count, dim), unit length up to rounding."""
        vectors = np.empty((self.count, self.dim), np.float16)
        for start in range(0, self.count, _CHUNK):
            vectors[start : start + _CHUNK] = self._around(
                min(_CHUNK, self.count - start), self._seed * 1_000_003 + start
            )
        return vectors

    def image_questions(self, count: int) -> Floats:
        """Images of the same kind that are not in the collection."""
        return self._around(count, self._seed * 1_000_003 + 999_999_937)

    def text_questions(self, count: int) -> Floats:
        """Texts of the text tower."""
        dice = np.random.default_rng(self._seed + 1)
        chosen: Floats = self._texts[dice.permutation(len(self._texts))[:count]]
        return chosen

    def _around(self, count: int, seed: int) -> Floats:
        dice = np.random.default_rng(seed)
        places = self._places[dice.choice(len(self._places), count, p=self._popularity)]
        vectors = places + dice.normal(size=(count, self.dim)).astype(np.float32) @ self._mixing.T
        unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit
