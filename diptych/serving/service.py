"""What a server can do, for the API and the page alike: search, look at pictures, embed, classify, change the index."""

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, Self, TypeVar, cast

import numpy as np
import torch

from diptych.data.images.decoding import Pixels
from diptych.embed.encode import Vectors
from diptych.errors import SearchIndexError, SettingsError, TextError
from diptych.evaluation.zero_shot.classification import class_prompts, mean_directions
from diptych.evaluation.zero_shot.own_labels import Prediction, ranked_classes, ranked_labels
from diptych.evaluation.zero_shot.prompts import check_templates
from diptych.search.image_index import Index
from diptych.search.query import Answer, Question, Sort
from diptych.search.searcher import Searcher, in_order, texts_and_pictures
from diptych.search.stores.filter_syntax import parse
from diptych.search.stores.filters import columns_of
from diptych.search.stores.image_rows import Item
from diptych.serving import uploads
from diptych.serving.batching import Room
from diptych.serving.originals import Original, read_original
from diptych.serving.prometheus import Metrics
from diptych.serving.served_model import Towers
from diptych.serving.server_settings import Settings

P = ParamSpec("P")
R = TypeVar("R")


class NotFoundError(SearchIndexError):
    """A picture that is named by its id is not in the index."""


class ForbiddenError(SettingsError):
    """The server was started without what a request needs."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """The small copy of a picture."""

    data: bytes  # JPEG
    version: str  # changes with the bytes


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A picture to be added."""

    data: bytes  # of the file
    caption: str | None = None


class Service:
    """One index and its model, being served; `async with` starts and stops it.

    The model runs in a thread of `towers`, the index is read in threads of its own, and changed in one more.
    Every kind of work has bounded room: OverloadedError from any call that finds it taken.
    """

    def __init__(self, index: Index, towers: Towers, settings: Settings, metrics: Metrics) -> None:
        """Raises:
        SearchIndexError: the index was filled by another model.
        """
        self.index, self.towers, self.settings, self.metrics = index, towers, settings, metrics
        self.draining = False  # whether the server is on its way out
        self._searcher = Searcher(index, towers.encoder)
        self._questions = Room("questions", settings.index_queue, metrics)
        self._changes = Room("changes", settings.index_threads, metrics)
        metrics.watch_index(index.stats)

    async def __aenter__(self) -> Self:
        self._readers = ThreadPoolExecutor(self.settings.index_threads, thread_name_prefix="index")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        await self.towers.__aenter__()
        # The first pass of a model and the first search of an index take many times as long as the others.
        vectors = await self.towers.texts(["a picture"])
        await self._read("search", lambda: list(self.index.search(vectors[0], count=1)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.towers.__aexit__()
        self._readers.shutdown()
        self._writer.shutdown()

    async def search(self, question: Question) -> Answer:
        """The answer to a question. Pictures in it are the bytes of their files, never paths.

        Raises:
            SettingsError, TextError, ImageError: a part of it cannot be used; the message says which, and why.
            NotFoundError: it names a picture that is not in the index.
            SearchIndexError: the index cannot be read.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        vectors = await self._embedded(question)
        seconds = loop.time() - start
        try:
            self._check_filter(question.filter)
            answer = await self._read("search", self._searcher.answer, question, vectors)
        except SearchIndexError:
            for part in question.parts:
                if part.id is not None and await self.item(part.id) is None:
                    raise NotFoundError(f"no image of the index has the id {part.id!r}; check it") from None
            raise
        found = tuple(
            dataclasses.replace(
                one, item=self._shown(one.item), duplicates=tuple(map(self._shown, one.duplicates))
            )
            for one in answer.found
        )
        return Answer(found, answer.more, seconds, answer.seconds_searching)

    async def item(self, id_: str) -> Item | None:
        """One picture of the index."""
        found = await self._read("get", self.index.get, [id_])
        return self._shown(found.items[0]) if found.items else None

    async def items(
        self,
        filter_: str | None = None,
        *,
        offset: int = 0,
        count: int = 50,
        after: str = "",
        sort: Sort | None = None,
    ) -> tuple[list[Item], int]:
        """`count` pictures in the order of their ids or of `sort`, those after the id `after`, without the first
        `offset`; and how many meet the filter in all.

        Raises:
            SettingsError: the filter is not well formed. ForbiddenError: it asks for places, which are not told.
        """
        self._check_filter(filter_)

        def both() -> tuple[list[Item], int]:
            items = self.index.first(count, offset=offset, after=after, filter_=filter_, sort=sort)
            return list(map(self._shown, items)), self.index.count(filter_)

        return await self._read("list", both)

    async def thumbnail(self, id_: str) -> Thumbnail | None:
        """The small copy of a picture; None where there is none."""
        data = await self._read("thumbnail", self.index.thumbnail, id_)
        return None if data is None else Thumbnail(data, hashlib.sha256(data).hexdigest()[:32])

    async def picture(self, id_: str) -> Original | None:
        """The picture itself, if its file still is what the index recorded.

        Raises:
            ForbiddenError: this server hands out none.
        """
        if not self.settings.originals:
            raise ForbiddenError("this server hands out thumbnails only; it was started with --no-originals")
        item = await self.item(id_)
        return None if item is None else await self._read("original", read_original, item)

    async def decode(self, data: bytes) -> Pixels:
        """The pixels (height, width, 3) of an encoded picture; see `Towers.decode`."""
        return await self.towers.decode(data)

    async def texts(self, texts: Sequence[str], *, truncate: bool = False) -> Vectors:
        """(n, dim) of unit length for n texts; see `Towers.texts`."""
        return await self.towers.texts(texts, truncate=truncate)

    async def pictures(self, pictures: Sequence[bytes]) -> Vectors:
        """(n, dim) of unit length for n encoded pictures; see `Towers.pictures`."""
        return await self.towers.pictures(pictures)

    async def classify(
        self,
        pictures: Sequence[bytes],
        labels: Sequence[str],
        templates: Sequence[str],
        *,
        top: int | None = None,
    ) -> list[list[Prediction]]:
        """Return the `top` labels of each image by probability, as `evaluation.zero_shot.own_labels` does.

        Raises:
            SettingsError: fewer than two labels, one twice, too many prompts, or a template without `{}`.
            TextError, ImageError: a prompt or a picture cannot be read.
        """
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise SettingsError(
                f"labels: {len(labels)}, of which {len(set(labels))} differ; expected at least two, each once"
            )
        check_templates(templates, "templates")
        prompts = class_prompts(labels, templates)
        count = len(labels) * len(templates)
        if count > self.settings.prompts:
            raise SettingsError(
                f"{len(labels)} labels in {len(templates)} templates make {count} prompts; expected at most "
                f"{self.settings.prompts}"
            )
        vectors = await self.towers.texts([prompt for prompts_of_one in prompts for prompt in prompts_of_one])
        weights = mean_directions(vectors, [len(templates)] * len(labels))
        similarity = torch.from_numpy(await self.towers.pictures(pictures) @ weights.T)
        return ranked_labels(self.towers.logit_scale * similarity, similarity, labels, top)

    async def classify_own(
        self, pictures: Sequence[bytes], *, top: int | None = None
    ) -> list[list[Prediction]]:
        """The same of the classes that the model has learned from labels.

        Raises:
            SettingsError: it has not learned any. ImageError: a picture cannot be read.
        """
        head = self.towers.head
        if head is None:
            raise SettingsError(
                "labels: this server's model has no classes of its own; name the labels to choose from"
            )
        return ranked_classes(head, torch.from_numpy(await self.towers.seen(pictures)), top)

    async def add(self, pictures: Sequence[NewPicture]) -> list[Item]:
        """Add pictures to the index; when this returns they are kept, and within a second they are found.

        Raises:
            ForbiddenError: this server has no folder for uploads.
            TextError: a caption is longer than a text may be. ImageError: a picture cannot be read.
            SearchIndexError: another process is writing to the index.
        """
        folder = self.settings.uploads
        if folder is None:
            raise ForbiddenError("this server takes no pictures; start it with --uploads FOLDER")
        for picture in pictures:
            if picture.caption is not None and len(picture.caption) > self.settings.text_characters:
                limit = self.settings.text_characters
                raise TextError(f"caption of {len(picture.caption):,} characters; expected at most {limit:,}")
        with self._changes.taking():
            vectors, previews = await self.towers.pictures_with_previews(
                [picture.data for picture in pictures]
            )
            new = [
                uploads.Uploaded(picture.data, picture.caption, look, vector)
                for picture, look, vector in zip(pictures, previews, vectors, strict=True)
            ]
            return await self._write("add", uploads.add, self.index, self.towers.encoder, folder, new)

    async def remove(self, id_: str) -> bool:
        """Take a picture out of the index; whether it was there."""
        with self._changes.taking():
            return await self._write("remove", uploads.discard, self.index, self.settings.uploads, id_)

    async def ready(self) -> str | None:
        """Why the server cannot answer questions now; None where it can."""
        if self.draining:
            return "the server is shutting down"
        try:
            await self._read("count", self.index.count)
        except SearchIndexError as error:
            return str(error)
        return None

    def _check_filter(self, filter_: str | None) -> None:
        """Refuse a filter by places where they are not told: its answers would tell them."""
        if filter_ is None or self.settings.originals:
            return
        if columns_of(parse(filter_)) & {"latitude", "longitude"}:
            raise ForbiddenError(
                "filter: this server does not tell where pictures were taken; it was started with --no-originals"
            )

    def _shown(self, item: Item) -> Item:
        """The item without its place, unless its file, whose EXIF has the place as well, is handed out."""
        if self.settings.originals:
            return item
        return dataclasses.replace(item, latitude=None, longitude=None)

    async def _embedded(self, question: Question) -> Vectors:
        """The vectors (n, dim) of the question's texts and pictures, in the order of its parts."""
        texts, pictures = texts_and_pictures(question.parts)
        if not all(isinstance(picture, bytes) for picture in pictures):
            raise TypeError("a question to a server holds a picture's bytes; found something else")
        return in_order(
            question.parts,
            *await asyncio.gather(
                self.towers.texts(texts) if texts else self._nothing(),
                self.towers.pictures(cast(list[bytes], pictures)) if pictures else self._nothing(),
            ),
        )

    async def _nothing(self) -> Vectors:
        return np.empty((0, self.towers.dim), np.float32)

    async def _read(
        self, operation: str, function: Callable[P, R], *arguments: P.args, **named: P.kwargs
    ) -> R:
        with self._questions.taking():
            return await self._run(self._readers, operation, function, *arguments, **named)

    async def _write(
        self, operation: str, function: Callable[P, R], *arguments: P.args, **named: P.kwargs
    ) -> R:
        return await self._run(self._writer, operation, function, *arguments, **named)

    async def _run(
        self,
        pool: ThreadPoolExecutor,
        operation: str,
        function: Callable[P, R],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> R:
        def timed() -> R:
            with self.metrics.index(operation):
                return function(*arguments, **named)

        return await asyncio.get_running_loop().run_in_executor(pool, timed)
