"""A small hub on loopback, as the client of the real one sees it, for tests of downloads.

Large files have the headers of the real hub: `X-Repo-Commit`, `X-Linked-Etag` (their SHA-256), `X-Linked-Size`, and a
redirect to a storage at another address, which answers ranges. Small ones are redirected within the hub.
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_CACHED = "/api/resolve-cache/models/"
LARGE = (".safetensors", ".bin", ".pt")


@dataclass
class Repository:
    """A folder that the hub serves, and what it refuses."""

    folder: Path
    gated: bool = False
    private: bool = False  # needs the token "secret"
    damaged: bool = False  # sends other bytes than it states
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})


class LocalHub(ThreadingHTTPServer):
    """Serves repositories by name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.storage = _Storage(self)
        self.repositories: dict[str, Repository] = {}
        self.renamed: dict[str, str] = {}
        self.cuts: list[int] = []  # bytes after which each of the next answers with a large file ends
        self.asked: list[tuple[str, str, str | None]] = []  # method, path and range
        self.tokens_in_storage: list[str] = []

    @property
    def url(self) -> str:
        """The address of the hub."""
        return _address(self)

    def files_asked(self) -> set[str]:
        """The names of the files that were asked for."""
        return {path.rpartition("/")[2] for _, path, _ in self.asked}


class _Storage(ThreadingHTTPServer):
    """Another address, at which the large files lie."""

    daemon_threads = True

    def __init__(self, hub: LocalHub) -> None:
        super().__init__(("127.0.0.1", 0), _StorageHandler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def begin(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


class _HubHandler(_Handler):
    server: LocalHub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path, self.headers.get("Range")))
        cached = path.startswith(_CACHED)
        owner, name, *rest = path.removeprefix(_CACHED if cached else "/").split("/")
        if len(rest) != (2 if cached else 3):
            self._empty(404)
            return
        repo, revision, file = f"{owner}/{name}", rest[-2], rest[-1]
        if repo in self.server.renamed:
            self._empty(307, Location=f"/{self.server.renamed[repo]}/resolve/{revision}/{file}")
            return
        known = self.server.repositories.get(repo)
        if known is None or (known.private and self.headers.get("Authorization") != "Bearer secret"):
            self._empty(401, **{"X-Error-Code": "RepoNotFound"})
        elif known.gated:
            self._empty(403, **{"X-Error-Code": "GatedRepo"})
        elif revision not in {*known.revisions, *known.revisions.values()}:
            self._empty(404, **{"X-Error-Code": "RevisionNotFound"})
        else:
            commit = known.revisions.get(revision, revision)
            self._send(known, repo, file, commit, body=body, cached=cached)

    def _send(
        self, known: Repository, repo: str, file: str, commit: str, *, body: bool, cached: bool
    ) -> None:
        path = known.folder / file
        marks = {"X-Repo-Commit": commit}
        if not path.is_file():
            self._empty(404, **marks, **{"X-Error-Code": "EntryNotFound"})
        elif file.endswith(LARGE):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            size = str(path.stat().st_size)
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": size}
            self._empty(302, **marks, **linked, Location=f"{_address(self.server.storage)}/{repo}/{file}")
        elif not cached:
            self._empty(307, **marks, Location=f"/api/resolve-cache/models/{repo}/{commit}/{file}")
        else:
            contents = path.read_bytes()
            etag = hashlib.sha1(contents).hexdigest()
            self._begin(200, len(contents), **marks, ETag=f'"{etag}"')
            if body:
                self.wfile.write(contents)

    def _begin(self, status: int, length: int, **headers: str) -> None:
        self.begin(status, length, headers)

    def _empty(self, status: int, **headers: str) -> None:
        self.begin(status, 0, headers)


class _StorageHandler(_Handler):
    server: _Storage

    def do_GET(self) -> None:
        hub, wanted = self.server.hub, self.headers.get("Range")
        hub.asked.append((self.command, self.path, wanted))
        if (token := self.headers.get("Authorization")) is not None:
            hub.tokens_in_storage.append(token)
        _, owner, name, file = unquote(self.path).split("/")
        known = hub.repositories[f"{owner}/{name}"]
        contents = (known.folder / file).read_bytes()
        if known.damaged:
            contents = contents[:-1] + bytes([contents[-1] ^ 1])
        start = int((wanted or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        extra = {"Content-Range": f"bytes {start}-{len(contents) - 1}/{len(contents)}"} if start else {}
        self.begin(206 if start else 200, len(contents) - start, extra)
        if hub.cuts:
            contents = contents[: start + hub.cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(contents[start:])


def _address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@contextmanager
def running_hub() -> Iterator[LocalHub]:
    """Start a hub and its storage, and stop both at the end."""
    with LocalHub() as hub, hub.storage:
        threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            for server in (hub, hub.storage)
        ]
        for thread in threads:
            thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            hub.storage.shutdown()
            for thread in threads:
                thread.join()
