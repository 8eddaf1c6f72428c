"""Download and verify OpenAI's nine published models.

A file is used only if its SHA-256 is the published one. It is downloaded under another name (`.part`), so that an
interrupted download resumes, and gets its own name when it is whole and verified.
"""

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from diptych.atomic import sha256_of, sync_folder
from diptych.errors import DownloadError
from diptych.locks import exclusive_lock

BASE_URL = "https://openaipublic.azureedge.net/clip/models/"

Progress = Callable[[int, int | None], None]  # bytes so far, and in all, if the server reports that

_BLOCK = 1 << 18
_ATTEMPTS = 3
_TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class PublishedFile:
    """One file, as https://github.com/openai/CLIP/blob/main/clip/clip.py lists it."""

    name: str
    sha256: str

    def url(self, base: str = BASE_URL) -> str:
        """Return the address of the file."""
        return f"{base}{self.sha256}/{self.name}"


FILES: dict[str, PublishedFile] = {
    "RN50": PublishedFile("RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
    "RN101": PublishedFile("RN101.pt", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"),
    "RN50x4": PublishedFile("RN50x4.pt", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"),
    "RN50x16": PublishedFile(
        "RN50x16.pt", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"
    ),
    "RN50x64": PublishedFile(
        "RN50x64.pt", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"
    ),
    "ViT-B/32": PublishedFile(
        "ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    ),
    "ViT-B/16": PublishedFile(
        "ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
    ),
    "ViT-L/14": PublishedFile(
        "ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
    ),
    "ViT-L/14@336px": PublishedFile(
        "ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    ),
}


def cache_folder() -> Path:
    """Return the folder of published models: `$DIPTYCH_CACHE/models`, or the user's cache folder of this system."""
    root = os.environ.get("DIPTYCH_CACHE")
    return (Path(root) if root else platformdirs.user_cache_path("diptych")) / "models"


def fetch(
    name: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    base_url: str = BASE_URL,
) -> Path:
    """Return the verified file of a published model; it is downloaded into `folder` if it is not on this machine.

    It is looked for in `folder` (default: the cache folder), then in the cache of the original package.

    Raises `DownloadError`, with the file to fetch by hand and its path, if the file cannot be downloaded.
    """
    published = FILES[name]
    target = (Path(folder) if folder is not None else cache_folder()) / published.name
    for place in (target, Path.home() / ".cache" / "clip" / published.name):
        if place.is_file() and sha256_of(place) == published.sha256:
            return place
    if offline:
        state = "does not have the published SHA-256" if target.exists() else "is not on this machine"
        raise DownloadError(f"{name}: {target.name} {state}, and offline=True; {_by_hand(published, target)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(target.with_suffix(".lock")):
            # Another process may have finished it while this one waited. On systems without the lock, two downloads
            # at once would spoil each other, which the hash detects.
            if not (target.is_file() and sha256_of(target) == published.sha256):
                _download(published, target, published.url(base_url), progress)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"{name}: {published.url(base_url)} could not be fetched ({error}). Run the command again to resume the "
            f"download, or {_by_hand(published, target)}"
        ) from None
    return target


def _download(published: PublishedFile, target: Path, url: str, progress: Progress | None) -> None:
    part = target.with_suffix(".part")
    resumed = part.exists()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _receive(url, part, progress)
            break
        except urllib.error.HTTPError:
            raise  # the server has answered, and would answer the same again
        except (OSError, http.client.HTTPException):
            if attempt == _ATTEMPTS:
                raise
    found = sha256_of(part)
    if found != published.sha256:
        part.unlink()
        if resumed:  # perhaps only the old part was wrong
            _download(published, target, url, progress)
            return
        raise DownloadError(
            f"{url}: the received file has the SHA-256 {found}; expected {published.sha256}; it was deleted, unread. "
            f"A proxy on the way may change files: {_by_hand(published, target)}"
        )
    os.replace(part, target)
    sync_folder(target.parent)


def _receive(url: str, part: Path, progress: Progress | None) -> None:
    """Append the missing bytes of the file at `url` to `part`. Raises `OSError` if the connection ends early."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return  # the server has no further bytes; the hash decides whether the file is whole
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        done = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None else None
        with part.open("ab" if resumed else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done != total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def _by_hand(published: PublishedFile, target: Path) -> str:
    return f"fetch {published.url()} (SHA-256 {published.sha256}) and put it at {target}"
