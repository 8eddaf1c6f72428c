"""The model of a server: embeds the texts and images of many requests in batches."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Self, TypeAlias, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from diptych import tokenizer
from diptych.data.images.decoding import Pixels
from diptych.data.images.thumbnails import Preview, preview
from diptych.data.images.transforms import Preprocess
from diptych.embed.encode import Vectors, encode_by, encode_pixels, encode_tokens
from diptych.errors import ImageError, TextError
from diptych.models.image_model import ImageModel
from diptych.search.encoder import Encoder
from diptych.serving.batching import Batcher, Room
from diptych.serving.prometheus import Metrics
from diptych.serving.server_settings import Settings

# The bytes of an image file to pixels (height, width, 3). Raises ImageError.
Decode: TypeAlias = Callable[[bytes], Awaitable[Pixels]]

R = TypeVar("R")


class Towers:
    """Run both towers of one model, each behind a batcher; `async with` starts and stops them.

    All passes run one after the other in one thread: two at a time would share the cores and take twice as long each.
    """

    def __init__(
        self,
        model: ImageModel,
        preprocess: Preprocess,
        name: str,
        *,
        decode: Decode,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.encoder = Encoder(model, preprocess, name)
        self.name, self.fingerprint, self.dim = name, self.encoder.fingerprint, self.encoder.dim
        self.head = model.class_head  # of the classes that the model was fine-tuned on
        self.logit_scale = float(model.logit_scale.detach().float().exp())
        self._decode = decode
        self._model, self._preprocess = model, preprocess
        self._settings, self._metrics = settings, metrics
        self._known: OrderedDict[tuple[str, bool], Vectors] = OrderedDict()

    async def __aenter__(self) -> Self:
        settings, metrics = self._settings, self._metrics
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._preprocessors = ThreadPoolExecutor(2, thread_name_prefix="preprocess")
        free = asyncio.Lock()
        images = Room("pictures", settings.image_queue, metrics)

        def batcher(
            what: str, function: Callable[[list[Tensor]], Vectors], most: int, room: Room
        ) -> Batcher[Tensor]:
            return Batcher(
                what,
                function,
                most=most,
                wait=settings.batch_wait,
                room=room,
                model=free,
                executor=self._worker,
                metrics=metrics,
            )

        self._texts = batcher(
            "text",
            lambda rows: encode_tokens(self._model, torch.stack(rows)),
            settings.text_batch,
            Room("texts", settings.text_queue, metrics),
        )
        self._images = batcher(
            "image", lambda rows: encode_pixels(self._model, rows), settings.image_batch, images
        )
        self._class_features = batcher(
            "classified",
            encode_by(self._model, self._model.class_features),
            settings.image_batch,
            images,
        )
        self._texts.start()
        self._images.start()
        self._class_features.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._texts.stop()
        await self._images.stop()
        await self._class_features.stop()
        self._worker.shutdown()
        self._preprocessors.shutdown()

    async def texts(self, texts: Sequence[str], *, truncate: bool = False) -> Vectors:
        """Embed n texts, at least one: (n, dim). Recent texts come from a cache.

        Raises:
            TextError: a text is too long and `truncate` is off, or is not valid Unicode.
            OverloadedError: too many texts are waiting.
        """
        found = {text: self._recall((text, truncate)) for text in dict.fromkeys(texts)}
        new = [text for text, vector in found.items() if vector is None]
        if new:
            rows = [self._tokens(text, truncate) for text in new]
            with self._texts.room.taking(len(new), retry_after=self._texts.retry_after()):
                vectors = await self._texts.run(rows)
            for text, vector in zip(new, vectors, strict=True):
                found[text] = vector
                self._remember((text, truncate), vector)
        return np.stack([found[text] for text in texts])  # type: ignore[misc]

    async def decode(self, data: bytes) -> Pixels:
        """Decode an image file to pixels (height, width, 3).

        Raises:
            ImageError: the file cannot be read.
            OverloadedError: too many images are waiting.
        """
        with self._room_for([data]):
            return await self._decode(data)

    async def images(self, images: Sequence[bytes]) -> Vectors:
        """Embed n image files, at least one: (n, dim).

        Raises:
            ImageError: a file cannot be read; among several, the message has its index, from 0.
            OverloadedError: too many images are waiting.
        """
        # Take the places before decoding, so that the pixels in memory are bounded.
        with self._room_for(images):
            return await self._run(await self._decoded(images), self._images)

    async def class_features(self, images: Sequence[bytes]) -> Vectors:
        """Return the features (n, width) of n image files that `head` classifies. Raises as `images` does."""
        with self._room_for(images):
            return await self._run(await self._decoded(images), self._class_features)

    async def images_with_previews(self, images: Sequence[bytes]) -> tuple[Vectors, list[Preview]]:
        """Embed n image files and make the preview of each. Raises as `images` does."""
        with self._room_for(images):
            decoded = await self._decoded(images)
            previews = [await self._in_thread(preview, pixels) for pixels in decoded]
            return await self._run(decoded, self._images), previews

    def _room_for(self, images: Sequence[bytes]) -> AbstractContextManager[None]:
        return self._images.room.taking(len(images), retry_after=self._images.retry_after())

    async def _decoded(self, images: Sequence[bytes]) -> list[Pixels]:
        # Wait for all, also after a failure: their pixels are in memory until then, and hold their places.
        found = await asyncio.gather(*map(self._decode, images), return_exceptions=True)
        for number, one in enumerate(found):
            if isinstance(one, ImageError) and len(found) > 1:
                raise ImageError(f"image {number}: {one}") from one
            if isinstance(one, BaseException):
                raise one
        return cast(list[Pixels], found)

    async def _run(self, decoded: Sequence[Pixels], batcher: Batcher[Tensor]) -> Vectors:
        rows = await asyncio.gather(*(self._in_thread(self._preprocess, pixels) for pixels in decoded))
        return await batcher.run(rows)

    async def _in_thread(self, function: Callable[[Pixels], R], pixels: Pixels) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._preprocessors, function, pixels)

    def _tokens(self, text: str, truncate: bool) -> Tensor:
        if len(text) > self._settings.text_characters:
            raise TextError(
                f"text of {len(text):,} characters, beginning {text[:40]!r}: expected at most "
                f"{self._settings.text_characters:,}; shorten it"
            )
        return tokenizer.tokenize([text], context_length=self._model.context_length, truncate=truncate)[0]

    def _recall(self, key: tuple[str, bool]) -> Vectors | None:
        vector = self._known.get(key)
        self._metrics.cached_texts.labels("miss" if vector is None else "hit").inc()
        if vector is not None:
            self._known.move_to_end(key)
        return vector

    def _remember(self, key: tuple[str, bool], vector: Vectors) -> None:
        if self._settings.text_cache:
            self._known[key] = vector
            if len(self._known) > self._settings.text_cache:
                self._known.popitem(last=False)
