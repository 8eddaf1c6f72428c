"""Store uploaded query images in memory for a while, so that a page of results has an address."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

# One hour is a long session; 64 MB hold about a hundred photos of a phone's gallery, or a few of a camera.
SECONDS = 3600.0
BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded image, and its small copy for the page."""

    data: bytes
    thumbnail: bytes  # of `diptych.data.images.thumbnails.MEDIA_TYPE`, encoded anew from pixels


class Uploads:
    """Store the last images by tokens that cannot be guessed. Nothing is written to disk.

    The address of a page of results names its image by the token. It can be reloaded, paged and shared until the image
    is dropped: when it is old, when newer ones need the room, or when the server restarts.
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
        """Store an image and return its token."""
        token = secrets.token_urlsafe(16)
        self._kept[token] = self._clock(), upload
        self._bytes += _size(upload)
        self._forget()
        return token

    def get(self, token: str) -> Upload | None:
        """Return the image of a token; None if it was dropped."""
        self._forget()
        found = self._kept.get(token)
        return None if found is None else found[1]

    def _forget(self) -> None:
        now = self._clock()
        while self._kept:
            kept_at, upload = next(iter(self._kept.values()))
            # The newest stays, however large: the server accepted it.
            crowded = self._bytes > self._most_bytes and len(self._kept) > 1
            if not crowded and now - kept_at < self._seconds:
                return
            self._kept.popitem(last=False)
            self._bytes -= _size(upload)


def _size(upload: Upload) -> int:
    return len(upload.data) + len(upload.thumbnail)
