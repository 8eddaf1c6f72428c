"""Answer a query to an index: embed its parts, combine them, rank, group, diversify, and return a page."""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from diptych.errors import SearchIndexError
from diptych.search.diversity import diversify
from diptych.search.duplicates import duplicate_groups
from diptych.search.image_index import Index
from diptych.search.query import DEEPEST, Answer, Match, QueryPart, Question, Sort, combine, sort_key
from diptych.search.stores.image_rows import Half, Hit

if TYPE_CHECKING:  # it imports torch, which the answer to embedded parts does not need
    from diptych.embed.encode import ImageInput

Vectors: TypeAlias = NDArray[np.float32]
R = TypeVar("R", Hit, Match)

# Duplicates are grouped among this many of the best images; the answer ends with them.
GROUPED = 500
# A sort by date covers this many of the best matches; with a minimum score, all that reach it, up to `GROUPED`.
SORTED = 100
# Diversity rearranges this many of the best results; later ones keep their order.
DIVERSIFIED = 100


class QueryEncoder(Protocol):
    """The model of an index, for queries; `diptych.search.encoder.Encoder` implements it."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def dim(self) -> int: ...

    def texts(self, texts: list[str]) -> Vectors:
        """Return (n, dim), unit length. Raises TextError for a text that cannot be tokenized."""
        ...

    def images(self, images: "list[ImageInput]") -> Vectors:
        """Return (n, dim), unit length. Raises ImageError for an image that cannot be read."""
        ...


class Searcher:
    """Answers queries to an index with the model that filled it. Safe to use from several threads if the encoder is.

    Raises:
        SearchIndexError: `encoder` is not the index's model.
    """

    def __init__(self, index: Index, encoder: QueryEncoder) -> None:
        index.require(encoder)
        self.index, self._encoder = index, encoder

    def search(self, question: Question) -> Answer:
        """Embed the parts of a query, and answer it; see `answer`.

        Raises:
            TextError, ImageError: a part cannot be read. Also the errors of `answer`.
        """
        started = time.perf_counter()
        vectors = self._embed(question.parts)
        embedded = time.perf_counter() - started
        return dataclasses.replace(self.answer(question, vectors), seconds_embedding=embedded)

    def answer(self, question: Question, vectors: Vectors) -> Answer:
        """Answer a query whose texts and images are embedded. `seconds_embedding` of the answer is 0.

        vectors: (n, dim), unit length, in the order of the parts; parts by id have no row, and are looked up here.

        The ranking is by score, and for equal scores by id. It leaves out the images that the query names by id. Then,
        in this order: results below `min_score` are dropped; duplicates are grouped; diversity rearranges the results,
        or `sort` orders the 100 best (with `min_score`: the 500 best) by date and ends the answer there; and the page
        is cut out. So the pages of a query have no gaps and no repeats while the index does not change.

        Raises:
            SettingsError: the filter is not well formed, or the parts cancel each other.
            SearchIndexError: the index has no image with a given id, or cannot be read.
        """
        started = time.perf_counter()
        query = combine(self._vectors(question.parts, vectors), _weights(question.parts))
        found = self._found(question, self._ranking(question, query))
        page = list(islice(found, question.offset, question.offset + question.count + 1))
        more = len(page) > question.count and question.offset + question.count < DEEPEST
        return Answer(tuple(page[: question.count]), more, 0.0, time.perf_counter() - started)

    def _embed(self, parts: Sequence[QueryPart]) -> Vectors:
        """Embed texts and images, each kind in one call of the model."""
        texts, images = texts_and_images(parts)
        nothing = np.empty((0, self._encoder.dim), np.float32)
        return in_order(
            parts,
            self._encoder.texts(texts) if texts else nothing,
            self._encoder.images(images) if images else nothing,
        )

    def _vectors(self, parts: Sequence[QueryPart], given: Vectors) -> Vectors:
        """Return the vectors of all parts: the given ones, and those from the index."""
        ids = [part.id for part in parts if part.id is not None]
        dim = self._encoder.dim
        if given.shape != (len(parts) - len(ids), dim):
            raise ValueError(f"vectors {given.shape}; expected ({len(parts) - len(ids)}, {dim})")
        known = self.index.get(ids)
        by_id = dict(zip((item.id for item in known.items), _unit(known.vectors), strict=True))
        if absent := [id_ for id_ in ids if id_ not in by_id]:
            raise SearchIndexError(f"{self.index.place}: no image has the id {absent[0]!r}; check the id")
        rows = iter(given)
        return np.array([next(rows) if part.id is None else by_id[part.id] for part in parts])

    def _ranking(self, question: Question, query: Vectors) -> Iterator[Hit]:
        named = {part.id for part in question.parts}
        ranking = self.index.ranking(
            query, min_score=question.min_score, filter_=question.filter, exact=question.exact
        )
        return (hit for hit in ranking if hit.item.id not in named)

    def _found(self, question: Question, ranking: Iterator[Hit]) -> Iterator[Match]:
        found = (
            self._group(list(islice(ranking, GROUPED)))
            if question.group_duplicates
            else (Match(hit.item, hit.score) for hit in ranking)
        )
        if question.sort is not None:
            matches = islice(found, SORTED if question.min_score is None else GROUPED)
            return iter(_sort(matches, question.sort))
        return self._diversify(found, question.diversity) if question.diversity else found

    def _group(self, hits: list[Hit]) -> Iterator[Match]:
        hits, vectors = self._look_up(hits)
        for first, *others in duplicate_groups(vectors, [hit.item.sha256 for hit in hits]):
            yield Match(hits[first].item, hits[first].score, tuple(hits[row].item for row in others))

    def _diversify(self, found: Iterator[Match], diversity: float) -> Iterator[Match]:
        best, vectors = self._look_up(list(islice(found, DIVERSIFIED)))
        scores = np.array([one.score for one in best], np.float32)
        yield from (best[row] for row in diversify(scores, vectors, diversity))
        yield from found

    def _look_up(self, results: list[R]) -> tuple[list[R], Vectors]:
        """Return results with their vectors (n, dim), unit length; images removed meanwhile are left out."""
        known = self.index.get([one.item.id for one in results])
        rows = {item.id: row for row, item in enumerate(known.items)}
        kept = [one for one in results if one.item.id in rows]
        return kept, _unit(known.vectors[[rows[one.item.id] for one in kept]])


def texts_and_images(parts: Sequence[QueryPart]) -> "tuple[list[str], list[ImageInput]]":
    """Return the texts and the images of a question's parts, which a model is to embed."""
    return (
        [part.text for part in parts if part.text is not None],
        [part.image for part in parts if part.image is not None],
    )


def in_order(parts: Sequence[QueryPart], of_texts: Vectors, of_images: Vectors) -> Vectors:
    """Return the vectors (n, dim) of all texts and images in the order of the parts."""
    order = [part.text is not None for part in parts if part.id is None]
    vectors = np.empty((len(order), of_texts.shape[1]), np.float32)
    is_text = np.array(order, bool)
    vectors[is_text], vectors[~is_text] = of_texts, of_images
    return vectors


def _sort(found: Iterable[Match], sort: Sort) -> list[Match]:
    return sorted(found, key=lambda one: sort_key(sort, one.item.moment, one.item.id))


def _weights(parts: Sequence[QueryPart]) -> Vectors:
    return np.array([part.weight for part in parts], np.float32)


def _unit(vectors: Half) -> Vectors:
    """Normalise stored vectors (n, dim) again, because float16 has rounded them."""
    rows = vectors.astype(np.float32)
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
