"""Published models: the download, the cache, and what happens when something is in the way."""

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from diptych.errors import DownloadError
from diptych.weights.foreign import published
from diptych.weights.foreign.published import FILES, PublishedFile, cache_folder, fetch

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file, as told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.ranges = True  # whether it knows the Range header
        self.cuts: list[int] = []  # bytes after which each of the next answers ends
        self.status = 200
        self.asked: list[str | None] = []  # the Range header of each request
        self.paths: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        server.paths.append(self.path)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setitem(FILES, "RN50", PublishedFile("RN50.pt", SHA256))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _fetch(
    server: Server, folder: Path, *, offline: bool = False, progress: published.Progress | None = None
) -> Path:
    base = f"http://127.0.0.1:{server.server_port}/models/"
    return fetch("RN50", folder=folder, offline=offline, progress=progress, base_url=base)


def test_a_model_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = _fetch(server, tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "cache" / "RN50.pt"
    assert path.read_bytes() == CONTENT
    assert server.paths == [f"/models/{SHA256}/RN50.pt"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert _fetch(server, tmp_path / "cache") == path
    assert len(server.paths) == 1
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_cut_connection_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 50_000]
    path = _fetch(server, tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_what_is_left_of_a_failed_download_is_used_the_next_time(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 1000, 1000]
    with pytest.raises(DownloadError, match=r"ended after 3000 of 1024000 bytes\)\. Run the command again"):
        _fetch(server, tmp_path)
    assert not (tmp_path / "RN50.pt").exists()
    assert (tmp_path / "RN50.part").stat().st_size == 3000
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=3000-"


def test_a_server_without_ranges_sends_everything_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "RN50.part").write_bytes(CONTENT[:5000])
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=5000-"]


def test_a_part_that_is_already_whole_needs_no_bytes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "RN50.part").write_bytes(CONTENT)
    assert _fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"wrong" * 100, CONTENT + b"more"], ids=["wrong", "too long"])
def test_a_spoilt_part_is_thrown_away_and_fetched_anew(server: Server, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "RN50.part").write_bytes(part)
    assert _fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] is None


def test_what_is_not_the_published_file_never_gets_its_name(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"\0"
    with pytest.raises(DownloadError, match="deleted, unread"):
        _fetch(server, tmp_path)
    assert not list(tmp_path.glob("RN50.p*"))


def test_a_damaged_file_in_the_cache_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "RN50.pt").write_bytes(b"damaged")
    assert _fetch(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_refuses_is_named_with_what_to_do_by_hand(
    server: Server, tmp_path: Path, status: int
) -> None:
    server.status = status
    with pytest.raises(DownloadError) as caught:
        _fetch(server, tmp_path)
    message = str(caught.value)
    assert f"HTTP Error {status}" in message
    assert SHA256 in message
    assert f"put it at {tmp_path / 'RN50.pt'}" in message
    assert len(server.asked) == 1


def test_no_network_says_what_to_do_by_hand(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=rf"(?s){SHA256}.*{re.escape(str(tmp_path / 'RN50.pt'))}"):
        fetch("RN50", folder=tmp_path, base_url="http://127.0.0.1:9/")


def test_offline_asks_nobody_and_says_which_file_is_missing_and_where_to_put_it(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError) as caught:
        _fetch(server, tmp_path, offline=True)
    message = str(caught.value)
    assert f"https://openaipublic.azureedge.net/clip/models/{SHA256}/RN50.pt" in message
    assert f"(SHA-256 {SHA256}) and put it at {tmp_path / 'RN50.pt'}" in message
    (tmp_path / "RN50.pt").write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="does not have the published SHA-256"):
        _fetch(server, tmp_path, offline=True)
    (tmp_path / "RN50.pt").write_bytes(CONTENT)
    assert _fetch(server, tmp_path, offline=True) == tmp_path / "RN50.pt"
    assert not server.asked


def test_the_original_packages_cache_is_used_where_its_file_is_right(server: Server, tmp_path: Path) -> None:
    original = tmp_path / "home" / ".cache" / "clip" / "RN50.pt"
    original.parent.mkdir(parents=True)
    original.write_bytes(CONTENT)
    assert _fetch(server, tmp_path / "cache") == original
    original.write_bytes(b"damaged")
    assert _fetch(server, tmp_path / "cache") == tmp_path / "cache" / "RN50.pt"
    assert original.read_bytes() == b"damaged"


def test_several_at_once_download_once(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=_fetch, args=(server, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "RN50.pt").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_the_cache_folder_follows_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "models"
    monkeypatch.delenv("DIPTYCH_CACHE")
    assert cache_folder().parts[-2:] == ("diptych", "models")


def test_the_nine_published_files_have_distinct_names_and_whole_hashes() -> None:
    assert len({file.name for file in FILES.values()}) == len({file.sha256 for file in FILES.values()}) == 9
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in FILES.values())
