"""Pictures that people search with, kept in memory for a while, so that a result has an address."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

# An hour is a long session; 64 MB are some hundred photographs from a telephone's gallery, or a few from a camera.
SECONDS = 3600.0
BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture as it came, and the small copy that a page may show."""

    data: bytes
    thumbnail: bytes  # of `diptych.data.images.thumbnails.MEDIA_TYPE`, made of nothing but pixels


class Uploads:
    """The last pictures, by tokens that cannot be guessed. Nothing is written to a disk.

    A result's address names its picture by the token: it can be reloaded, paged and passed on until the picture is
    forgotten, because it is old, because newer ones need the room, or because the server was started again.
    """

    def __init__(
        self,
        *,
        seconds: float = SECONDS,
        most_bytes: int = BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._most_bytes, self._clock = seconds, most_bytes, clock
        self._kept: OrderedDict[str, tuple[float, Upload]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, upload: Upload) -> str:
        """Keep a picture; its token."""
        token = secrets.token_urlsafe(16)
        self._kept[token] = self._clock(), upload
        self._bytes += _size(upload)
        self._forget()
        return token

    def get(self, token: str) -> Upload | None:
        """The picture of a token; None when it has been forgotten."""
        self._forget()
        found = self._kept.get(token)
        return None if found is None else found[1]

    def _forget(self) -> None:
        now = self._clock()
        while self._kept:
            kept_at, upload = next(iter(self._kept.values()))
            # The newest stays, however large: the server has let it in.
            crowded = self._bytes > self._most_bytes and len(self._kept) > 1
            if not crowded and now - kept_at < self._seconds:
                return
            self._kept.popitem(last=False)
            self._bytes -= _size(upload)


def _size(upload: Upload) -> int:
    return len(upload.data) + len(upload.thumbnail)
