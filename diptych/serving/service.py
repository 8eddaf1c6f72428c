"""The operations of a server, for the API and the page: search, show images, embed, classify, change the index."""

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
from diptych.search.searcher import Searcher, in_order, texts_and_images
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
    """The index has no image with the id that a request names."""


class ForbiddenError(SettingsError):
    """The server was started without an option that a request needs."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG copy of an image."""

    data: bytes  # JPEG
    version: str  # changes with the bytes


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image to add to the index."""

    data: bytes  # of the file
    caption: str | None = None


class Service:
    """Serve one index and its model; `async with` starts and stops the threads.

    The model runs in a thread of `towers`. Other threads read the index, and one thread changes it. Each kind of work
    has a limit; a call over the limit raises OverloadedError.
    """

    def __init__(self, index: Index, towers: Towers, settings: Settings, metrics: Metrics) -> None:
        """Raises:
        SearchIndexError: the index was filled by another model.
        """
        self.index, self.towers, self.settings, self.metrics = index, towers, settings, metrics
        self.draining = False  # whether the server is shutting down
        self._searcher = Searcher(index, towers.encoder)
        self._questions = Room("questions", settings.index_queue, metrics)
        self._changes = Room("changes", settings.index_threads, metrics)
        metrics.watch_index(index.stats)

    async def __aenter__(self) -> Self:
        self._readers = ThreadPoolExecutor(self.settings.index_threads, thread_name_prefix="index")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        await self.towers.__aenter__()
        # Warm up: the first pass of a model and the first search of an index take many times as long as later ones.
        vectors = await self.towers.texts(["an image"])
        await self._read("search", lambda: list(self.index.search(vectors[0], count=1)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.towers.__aexit__()
        self._readers.shutdown()
        self._writer.shutdown()

    async def search(self, question: Question) -> Answer:
        """Answer a query. Its images are the bytes of files, never paths.

        Raises:
            SettingsError, TextError, ImageError: a part of the query cannot be used; the message says which, and why.
            NotFoundError: the query names an image that is not in the index.
            SearchIndexError: the index cannot be read.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        vectors = await self._embed(question)
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
        """Return one image of the index; None if it is not there."""
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
        """List `count` images and count all that match the filter.

        The order is by id, or by `sort`. The list begins after the id `after` and leaves out the first `offset`.

        Raises:
            SettingsError: the filter has a mistake. ForbiddenError: it asks for places, which this server hides.
        """
        self._check_filter(filter_)

        def both() -> tuple[list[Item], int]:
            items = self.index.first(count, offset=offset, after=after, filter_=filter_, sort=sort)
            return list(map(self._shown, items)), self.index.count(filter_)

        return await self._read("list", both)

    async def thumbnail(self, id_: str) -> Thumbnail | None:
        """Return the thumbnail of an image; None if it has none."""
        data = await self._read("thumbnail", self.index.thumbnail, id_)
        return None if data is None else Thumbnail(data, hashlib.sha256(data).hexdigest()[:32])

    async def image(self, id_: str) -> Original | None:
        """Return an image's file if its bytes are still those that the index recorded; otherwise None.

        Raises:
            ForbiddenError: this server sends thumbnails only.
        """
        if not self.settings.originals:
            raise ForbiddenError("this server sends thumbnails only; it was started with --no-originals")
        item = await self.item(id_)
        return None if item is None else await self._read("original", read_original, item)

    async def decode(self, data: bytes) -> Pixels:
        """Decode an image file to pixels (height, width, 3); see `Towers.decode`."""
        return await self.towers.decode(data)

    async def texts(self, texts: Sequence[str], *, truncate: bool = False) -> Vectors:
        """Embed n texts: (n, dim), unit length; see `Towers.texts`."""
        return await self.towers.texts(texts, truncate=truncate)

    async def images(self, images: Sequence[bytes]) -> Vectors:
        """Embed n image files: (n, dim), unit length; see `Towers.images`."""
        return await self.towers.images(images)

    async def classify(
        self,
        images: Sequence[bytes],
        labels: Sequence[str],
        templates: Sequence[str],
        *,
        top: int | None = None,
    ) -> list[list[Prediction]]:
        """Return the `top` labels of each image by probability, as `evaluation.zero_shot.own_labels` does.

        Raises:
            SettingsError: fewer than two labels, one twice, too many prompts, or a template without `{}`.
            TextError, ImageError: a prompt or an image cannot be read.
        """
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise SettingsError(
                f"labels: found {len(labels)}, {len(set(labels))} of them different; expected at least two, each once"
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
        similarity = torch.from_numpy(await self.towers.images(images) @ weights.T)
        return ranked_labels(self.towers.logit_scale * similarity, similarity, labels, top)

    async def classify_own(
        self, images: Sequence[bytes], *, top: int | None = None
    ) -> list[list[Prediction]]:
        """Return the `top` classes of each image, among the classes that the model was fine-tuned on.

        Raises:
            SettingsError: the model was not fine-tuned on classes. ImageError: an image cannot be read.
        """
        head = self.towers.head
        if head is None:
            raise SettingsError(
                "labels: none given, and this server's model was not fine-tuned on classes; send labels to choose from"
            )
        return ranked_classes(head, torch.from_numpy(await self.towers.class_features(images)), top)

    async def add(self, images: Sequence[NewImage]) -> list[Item]:
        """Add images to the index. They are on disk when this returns; searches find them within a second.

        Raises:
            ForbiddenError: this server has no folder for uploads.
            TextError: a caption is too long. ImageError: an image cannot be read.
            SearchIndexError: another process is writing to the index.
        """
        folder = self.settings.uploads
        if folder is None:
            raise ForbiddenError("this server takes no uploads; start it with --uploads FOLDER")
        for image in images:
            if image.caption is not None and len(image.caption) > self.settings.text_characters:
                limit = self.settings.text_characters
                raise TextError(f"caption of {len(image.caption):,} characters; expected at most {limit:,}")
        with self._changes.taking():
            vectors, previews = await self.towers.images_with_previews([image.data for image in images])
            new = [
                uploads.EncodedUpload(image.data, image.caption, look, vector)
                for image, look, vector in zip(images, previews, vectors, strict=True)
            ]
            return await self._write("add", uploads.add, self.index, self.towers.encoder, folder, new)

    async def remove(self, id_: str) -> bool:
        """Remove an image from the index. Return whether it was there."""
        with self._changes.taking():
            return await self._write("remove", uploads.discard, self.index, self.settings.uploads, id_)

    async def ready(self) -> str | None:
        """Return the reason why the server cannot answer queries now; None if it can."""
        if self.draining:
            return "the server is shutting down"
        try:
            await self._read("count", self.index.count)
        except SearchIndexError as error:
            return str(error)
        return None

    def _check_filter(self, filter_: str | None) -> None:
        """Refuse a filter by place on a server that hides places: its answers would reveal them."""
        if filter_ is None or self.settings.originals:
            return
        if columns_of(parse(filter_)) & {"latitude", "longitude"}:
            raise ForbiddenError(
                "filter: this server hides where images were taken; it was started with --no-originals"
            )

    def _shown(self, item: Item) -> Item:
        """Return the item without its place. A server that sends files keeps it: their EXIF has the place anyway."""
        if self.settings.originals:
            return item
        return dataclasses.replace(item, latitude=None, longitude=None)

    async def _embed(self, question: Question) -> Vectors:
        """Embed the texts and images of a query: (n, dim), in the order of its parts."""
        texts, images = texts_and_images(question.parts)
        if not all(isinstance(image, bytes) for image in images):
            raise TypeError(
                "query: an image is not bytes; a query to a server holds the bytes of image files"
            )
        return in_order(
            question.parts,
            *await asyncio.gather(
                self.towers.texts(texts) if texts else self._no_vectors(),
                self.towers.images(cast(list[bytes], images)) if images else self._no_vectors(),
            ),
        )

    async def _no_vectors(self) -> Vectors:
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
