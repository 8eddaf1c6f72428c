"""Search an index with the model that filled it: `diptych.open_index`."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self, TypeAlias

import torch

from diptych.embed.encode import ImageInput, Vectors
from diptych.errors import CheckpointError
from diptych.pretrained import Precision, full_name, load
from diptych.search.encoder import Encoder
from diptych.search.image_index import Index
from diptych.search.query import Match, QueryPart, Question, Sort, check_page
from diptych.search.query_words import check_words
from diptych.search.searcher import Searcher
from diptych.search.stores.image_rows import Item

Term: TypeAlias = ImageInput | QueryPart  # a string is words, never a path


def open_index(
    place: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
) -> "SearchIndex":
    """Open an index that `build_index` or `diptych index` filled.

    Args:
        place: a folder, `s3://bucket/prefix` or `postgresql://...#name`.
        model: where the model that filled the index is now, if it has moved; the index knows its name.
        device: where the model computes: "auto", "cpu", "cuda", "cuda:1" or "mps", as for `load`.
        precision: of the matrix products: "float32", "float16" or "bfloat16".

    Returns:
        The open index; its model is loaded by the first query that needs it.

    Raises:
        SearchIndexError: there is no index, or it is damaged or of another format.
        MissingExtraError: the package of its store is not installed.

    Example:
        >>> import diptych
        >>> with diptych.open_index("images.index") as index:
        ...     [match.item.caption for match in index.search("a bicycle", limit=1)]
        ['bicycle']
    """
    index = Index(Path(place) if isinstance(place, os.PathLike) else place)
    return SearchIndex(index, _LazyEncoder(index, model, device, precision))


class SearchIndex:
    """An open index with its model. Close it after use, or use it in a `with` statement.

    It is safe to use from several threads, and follows writers of the index at most a second behind them.
    """

    def __init__(self, index: Index, encoder: "_LazyEncoder") -> None:
        self._index = index
        self._searcher = Searcher(index, encoder)

    def search(
        self,
        query: Term | Sequence[Term],
        *,
        limit: int = 10,
        offset: int = 0,
        where: str | None = None,
        min_score: float | None = None,
        unique: bool = False,
        diversity: float = 0.0,
        sort: Sort | None = None,
        exact: bool = False,
    ) -> list[Match]:
        """Return the images that match a query, best first.

        The first query that needs the model loads it; a query of ids alone never does.

        Args:
            query: words (`str`), an image (`pathlib.Path`, bytes or a Pillow image), a `QueryPart`, or a sequence of
                these, which add up.
            limit: number of results, at least 1. Results beyond the first 10,000 cannot be asked for.
            offset: number of results to skip: those of the pages before.
            where: a filter, such as 'taken >= 2024-06-01 and tag = "sea"' (docs/search.md has its syntax).
            min_score: least cosine of a result with the query, -1 to 1.
            unique: return only the best of images that are nearly the same; the others are its `duplicates`.
            diversity: 0 returns the best matches, 1 the most varied ones.
            sort: "newest" or "oldest" orders the best matches by the time when they were taken.
            exact: compare with every image of a large index too, where an approximate search is the default.

        Raises:
            SettingsError: a string names an image file or an address, a number is out of bounds, the filter is not
                well formed, or the parts cancel each other.
            TextError, ImageError: a text is too long, or an image cannot be read.
            SearchIndexError: the index was filled by another model, has no image with that id, or cannot be read.
            CheckpointError: the index's model is not there any more; give `open_index` a `model`.

        Example:
            >>> import diptych
            >>> index = diptych.open_index("images.index")
            >>> [match.item.caption for match in index.search("a bicycle", limit=1)]
            ['bicycle']
        """
        terms = [query] if isinstance(query, Term) else query
        question = Question(
            tuple(map(_part, terms)),
            filter=where,
            min_score=min_score,
            count=limit,
            offset=offset,
            group_duplicates=unique,
            diversity=diversity,
            exact=exact,
            sort=sort,
        )
        return list(self._searcher.search(question).found)

    def images(
        self, *, limit: int = 10, offset: int = 0, where: str | None = None, sort: Sort = "newest"
    ) -> list[Item]:
        """Return images of the index in the order of their dates, without a query. No model is loaded.

        Args:
            limit: number of images, at least 1.
            offset: number of images to skip.
            where: a filter, as for `search`.
            sort: "newest" or "oldest" first. Images without a date come last.

        Raises:
            SettingsError: a number is out of bounds, or the filter is not well formed.
            SearchIndexError: the index cannot be read.
        """
        check_page(limit, offset)
        return self._index.first(limit, offset=offset, filter_=where, sort=sort)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._index)

    def close(self) -> None:
        """Close the index; the last call."""
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _LazyEncoder:
    """The model that an index names, loaded when the first text or image is embedded."""

    def __init__(
        self,
        index: Index,
        model: str | os.PathLike[str] | None,
        device: str | torch.device | None,
        precision: Precision,
    ) -> None:
        table = index.manifest.current
        self.name, self.fingerprint, self.dim = table.model, table.fingerprint, table.dim
        self._index, self._model, self._device, self._precision = index, model, device, precision
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None

    def texts(self, texts: list[str]) -> Vectors:
        return self._loaded().texts(texts)

    def images(self, images: list[ImageInput]) -> Vectors:
        return self._loaded().images(images)

    def _loaded(self) -> Encoder:
        with self._lock:
            if self._encoder is None:
                name = full_name(self._model or self.name)
                try:
                    model, preprocess = load(name, self._device, precision=self._precision)
                except CheckpointError as error:
                    raise CheckpointError(
                        f"{self._index.place}: its model cannot be loaded: {error}; if it has moved, open the index "
                        "with model= its new place"
                    ) from None
                encoder = Encoder(model, preprocess, name)
                self._index.require(encoder)
                self._encoder = encoder
            return self._encoder


def _part(term: Term) -> QueryPart:
    """Return a term as a part of a query; a string is words."""
    if isinstance(term, QueryPart):
        return term
    if isinstance(term, str):
        check_words(term, as_image="pathlib.Path('{}')", as_words="QueryPart(text=...)")
        return QueryPart(text=term)
    return QueryPart(image=term)
