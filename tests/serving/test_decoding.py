"""Foreign pictures: the right pixels, and a hostile one costs its own request and nothing else."""

import asyncio
import contextlib
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diptych.data.images.decoding import Limits, Pixels, read_rgb
from diptych.errors import ImageError
from diptych.serving.guard import decoding_pool
from diptych.serving.guard.decoding_pool import DecodingLimits, DecodingPool

SMALL = DecodingLimits(
    image=Limits(file_bytes=2_000_000, pixels=4_000_000, side=65_535, formats=("JPEG", "PNG", "WebP", "GIF")),
    memory_bytes=200_000_000,
    cpu_seconds=5,
    children=1,
)


def decode(pool: DecodingPool, *pictures: bytes) -> list[Pixels | ImageError]:
    async def one(data: bytes) -> Pixels | ImageError:
        try:
            return await pool.decode(data)
        except ImageError as error:
            return error

    async def together() -> list[Pixels | ImageError]:
        return await asyncio.gather(*map(one, pictures))

    return asyncio.run(together())


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodingPool]:
    with DecodingPool(SMALL) as pool:
        yield pool


def in_place(data: bytes) -> Pixels | ImageError:
    try:
        return read_rgb(data, limits=SMALL.image)
    except ImageError as error:
        return error


def noise(width: int = 60, height: int = 45, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(1).integers(0, 256, (height, width, 4), np.uint8)
    if mode == "I;16":
        return Image.fromarray(values.view(np.uint16)[:, :, 0].copy())
    return (
        Image.fromarray(values, "RGBA").convert(mode) if mode != "CMYK" else Image.fromarray(values, "CMYK")
    )


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(noise(), "JPEG", exif=exif)


ORDINARY = {
    "jpeg": saved(noise(), "JPEG"),
    "progressive jpeg": saved(noise(), "JPEG", progressive=True),
    "cmyk jpeg": saved(noise(mode="CMYK"), "JPEG"),
    "grey jpeg": saved(noise(mode="L"), "JPEG"),
    "turned jpeg": turned(),
    "png": saved(noise(), "PNG"),
    "transparent png": saved(noise(mode="RGBA"), "PNG"),
    "palette png": saved(noise(mode="P"), "PNG", transparency=3),
    "16-bit png": saved(noise(mode="I;16"), "PNG"),
    "1-bit png": saved(noise(mode="1"), "PNG"),
    "webp": saved(noise(), "WEBP"),
    "transparent webp": saved(noise(mode="RGBA"), "WEBP", lossless=True),
    "animated webp": saved(noise(), "WEBP", save_all=True, append_images=[noise(mode="L")]),
    "gif": saved(noise(mode="P"), "GIF"),
    "animated gif": saved(noise(mode="P"), "GIF", save_all=True, append_images=[noise(mode="L")]),
    "one pixel": saved(noise(1, 1), "PNG"),
    "a line": saved(noise(2000, 1), "JPEG"),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_a_child_gives_the_pixels_that_decoding_in_place_gives(name: str, pool: DecodingPool) -> None:
    (pixels,) = decode(pool, ORDINARY[name])
    expected = read_rgb(ORDINARY[name])
    assert isinstance(pixels, np.ndarray), pixels
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


def test_many_at_once_get_each_its_own_pixels() -> None:
    pictures = [saved(noise(20 + n, 15 + n % 7), "PNG") for n in range(60)]
    with DecodingPool(replace(SMALL, children=2)) as pool:
        for data, pixels in zip(pictures, decode(pool, *pictures), strict=True):
            np.testing.assert_array_equal(pixels, read_rgb(data))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))


def png(
    width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 2, extra: bytes = b""
) -> bytes:
    header = struct.pack("!IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def gif_of(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HH", width, height)
        + b"\0\0\0,\0\0\0\0"
        + struct.pack("<HH", width, height)
        + b"\0\2\0;"
    )


ZEROS = zlib.compress(bytes(30_000_000), 9)
BOMBS = {
    "a large png": png(60_000, 60_000, ZEROS),
    "a png of 1-bit pixels": png(65_000, 65_000, ZEROS, depth=1, colour=0),
    "a png that is one line": png(4_000_000_000, 1, ZEROS),
    "a png of no width": png(0, 100, ZEROS),
    "a text chunk of 30 MB": png(
        8, 8, zlib.compress(bytes(200)), extra=chunk(b"zTXt", b"Comment\0\0" + ZEROS)
    ),
    "a profile of 30 MB": png(8, 8, zlib.compress(bytes(8)), extra=chunk(b"iCCP", b"p\0\0" + ZEROS)),
    "a gif canvas": gif_of(65_535, 65_535),
    "a webp canvas": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\xff" * 2,
    "a jpeg of 65,535 a side": b"\xff\xd8\xff\xc0\0\x11\x08"
    + b"\xff\xff" * 2
    + b"\3\1\x22\0\2\x11\0\3\x11\0"
    + b"\xff\xda",
    "a file larger than is read": bytes(2_000_001),
}
FOREIGN = {
    "nothing": b"",
    "text": b"hello",
    "a page": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "svg that includes a file": b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file",
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj",
    "zip": b"PK\x03\x04" + bytes(60),
    "elf": b"\x7fELF" + bytes(60),
    "pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
    "heic": b"\0\0\0\x18ftypheic" + bytes(60),
    "tiff": saved(noise(), "TIFF"),
    "bmp": saved(noise(), "BMP"),
    "ico": saved(noise(32, 32), "ICO"),
    "ppm": saved(noise(), "PPM"),
    "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
    "jpeg after something else": b"x" + saved(noise(), "JPEG"),
    "only a signature": b"\xff\xd8\xff",
}
TRUNCATED = {
    f"{tenth * 10} % of a {kind}": data[: max(1, len(data) * tenth // 10)]
    for kind, data in ORDINARY.items()
    if kind in ("jpeg", "progressive jpeg", "png", "webp", "gif", "animated gif")
    for tenth in range(1, 10)
}


def test_bombs_and_foreign_files_are_refused_with_a_reason(pool: DecodingPool) -> None:
    hostile = {**BOMBS, **FOREIGN}
    for name, found in zip(hostile, decode(pool, *hostile.values()), strict=True):
        # Where only the metadata are a bomb, the picture itself may well be read.
        harmless = name.startswith(("a text chunk", "a profile")) and isinstance(found, np.ndarray)
        assert harmless or isinstance(found, ImageError), name
        assert harmless or len(str(found)) < 1000, name
    (pixels,) = decode(pool, ORDINARY["jpeg"])
    assert isinstance(pixels, np.ndarray)


def test_a_truncated_picture_is_refused_as_it_is_in_place(pool: DecodingPool) -> None:
    for (name, data), found in zip(TRUNCATED.items(), decode(pool, *TRUNCATED.values()), strict=True):
        expected = in_place(data)
        if isinstance(expected, ImageError):
            assert str(found) == str(expected), name
        else:
            np.testing.assert_array_equal(found, expected)


POLYGLOTS = {
    "gif and script": saved(noise(mode="P"), "GIF") + b"/*<script>alert(1)</script>*/",
    "jpeg and zip": saved(noise(), "JPEG") + b"PK\x05\x06" + bytes(18),
    "png and page": saved(noise(), "PNG") + b"<html><script>alert(1)</script>",
    "jpeg with a page as comment": saved(noise(), "JPEG", comment=b"<script>alert(1)</script>"),
}


@pytest.mark.parametrize("name", POLYGLOTS)
def test_of_a_file_that_is_two_things_only_pixels_come_out(name: str, pool: DecodingPool) -> None:
    (pixels,) = decode(pool, POLYGLOTS[name])
    np.testing.assert_array_equal(pixels, read_rgb(POLYGLOTS[name]))


def test_the_server_itself_calls_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*arguments: object, **named: object) -> None:
        raise AssertionError("decoded in this process")

    with DecodingPool(SMALL) as pool:
        monkeypatch.setattr("diptych.data.images.decoding._parse", called)
        monkeypatch.setattr("diptych.data.images.decoding.simplejpeg", None)
        monkeypatch.setattr(Image, "open", called)
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", called)
        for name in ("jpeg", "png", "webp", "gif"):
            assert isinstance(decode(pool, ORDINARY[name])[0], np.ndarray)


# Instead of a decoder that a picture leads astray: a child whose decoder does what its picture says.
LED_ASTRAY = """
import ctypes, os, resource, socket, sys, time
import numpy as np
from diptych.errors import ImageError
from diptych.serving.guard import decoding_child

def astray(data, *, limits):
    act, _, what = data.decode().partition(":")
    return ACTS[act](what)

def says(what):
    raise ImageError(str(what))

def tried(act):
    try:
        act()
    except BaseException as error:
        says("failed: " + type(error).__name__)
    return np.ones((1, 1, 3), np.uint8)

def burn(_):
    while True:
        pass

def lie(size):
    width, height = map(int, size.split())
    os.write(int(sys.argv[1]), decoding_child.REPLY.pack(decoding_child.PIXELS, width, height))
    time.sleep(60)

def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True

def memory():
    return next(number for number in range(3, 64) if is_open(number) and number != int(sys.argv[1]))

def run(_):
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 5, "/dev/null", 0, 0)])

ACTS = {
    "crash": lambda _: ctypes.string_at(0),
    "exit": lambda _: os._exit(3),
    "burn": burn,
    "sleep": lambda _: time.sleep(60),
    "memory": lambda _: np.ones(10**9, np.uint8),
    "open": lambda path: tried(lambda: open(path)),
    "write": lambda _: tried(lambda: os.write(memory(), b"x")),
    "socket": lambda _: tried(socket.socket),
    "shrink": lambda _: tried(lambda: os.ftruncate(memory(), 0)),
    "run": lambda _: tried(lambda: run(_)),
    "environment": lambda _: says(sorted(os.environ)),
    "files": lambda _: says(sum(map(is_open, range(4096)))),
    "lie": lie,
    "garbage": lambda _: os.write(int(sys.argv[1]), b"\\xff" * 9) and time.sleep(60),
    "half": lambda _: (os.write(int(sys.argv[1]), b"\\1\\0"), os._exit(0)),
    "long": lambda _: says("x" * 100_000),
    "mistake": lambda _: 1 / 0,
    "fine": lambda _: np.full((2, 3, 3), 7, np.uint8),
}

decoding_child.read_rgb = astray
decoding_child.main(sys.argv[1:])
"""
UNLIMITED = LED_ASTRAY.replace(
    "decoding_child.main", "decoding_child._give_up_the_rest = lambda _: None\ndecoding_child.main"
)


Start = Callable[..., DecodingPool]


@pytest.fixture
def astray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts pools of one child that does what it is told."""
    popen = subprocess.Popen
    monkeypatch.setenv("DIPTYCH_TOKENS", "read a-secret-that-is-none-of-the-child's-business")
    with contextlib.ExitStack() as pools:

        def start(program: str = LED_ASTRAY, wall_seconds: float = 60) -> DecodingPool:
            file = tmp_path / "astray.py"
            file.write_text(program)

            def started(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
                assert command[:4] == [sys.executable, "-P", "-m", "diptych.serving.guard.decoding_child"]
                return popen([sys.executable, str(file), *command[4:]], **options)

            monkeypatch.setattr(subprocess, "Popen", started)
            limits = replace(SMALL, cpu_seconds=1, wall_seconds=wall_seconds)
            return pools.enter_context(DecodingPool(limits))

        yield start


def reason(found: Pixels | ImageError) -> str:
    assert isinstance(found, ImageError), found
    return str(found)


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        ("crash", f"the decoder crashed (exit status {-signal.SIGSEGV})"),
        ("exit", "the decoder crashed (exit status 3)"),
        ("mistake", "the decoder crashed (exit status 1)"),
        ("half", "the decoder crashed (exit status 0)"),
        ("burn", "decoding took more than 1 seconds"),
        ("garbage", "the decoder failed"),
        ("lie:0 0", "the decoder failed"),
        ("lie:4294967295 4294967295", "the decoder failed"),
        ("lie:2000 2001", "the decoder failed"),
    ],
)
def test_a_child_that_fails_costs_one_picture_and_is_replaced(act: str, expected: str, astray: Start) -> None:
    found, fine = decode(astray(), act.encode(), b"fine")
    assert reason(found).startswith(f"image of {len(act)} bytes: {expected}")
    assert isinstance(fine, np.ndarray)
    assert fine.tolist() == np.full((2, 3, 3), 7).tolist()


def test_a_child_that_sleeps_is_ended(astray: Start) -> None:
    pool = astray(wall_seconds=1)
    pids = alive(pool)
    (found,) = decode(pool, b"sleep")
    assert "decoding took more than 1 seconds" in reason(found)
    assert gone(pids)


def test_a_child_can_do_nothing_but_decode(astray: Start) -> None:
    acts = [
        "open:/etc/passwd",
        "open:/proc/self/environ",
        "socket",
        "shrink",
        "write",
        "run",
        "memory",
        "long",
    ]
    found = dict(zip(acts, map(reason, decode(astray(), *(act.encode() for act in acts))), strict=True))
    assert found.pop("shrink") == "failed: PermissionError"
    assert found.pop("memory").startswith(
        "image of 6 bytes: decoding needs more than 200,000,000 bytes of memory"
    )
    assert len(found.pop("long")) == 2000
    assert set(found.values()) == {"failed: OSError"}


def test_a_child_that_gives_nothing_up_is_noticed(astray: Start) -> None:
    """The broken twin: the same acts, without the limits."""
    acts = [b"open:/etc/passwd", b"open:/proc/self/environ", b"socket", b"write", b"run"]
    assert all(isinstance(found, np.ndarray) for found in decode(astray(UNLIMITED), *acts))


def test_memory_that_is_not_sealed_is_noticed(astray: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: whoever touches the memory next, child or server, is ended by the kernel."""
    monkeypatch.setattr("fcntl.fcntl", lambda *_: 0)
    assert f"exit status {-signal.SIGBUS}" in reason(decode(astray(), b"shrink")[0])


def test_a_child_knows_nothing_of_the_server(astray: Start) -> None:
    with open(os.devnull), socket.socket():
        environment, files = map(reason, decode(astray(), b"environment", b"files"))
    assert "DIPTYCH" not in environment
    # Three standard streams, the socket and the memory.
    assert files == "5"


def alive(pool: DecodingPool) -> list[int]:
    return [child._process.pid for child in list_of(pool) if child._process.poll() is None]


def list_of(pool: DecodingPool) -> list[decoding_pool._Child]:
    children = [pool._idle.get() for _ in range(pool._idle.qsize())]
    for child in children:
        pool._idle.put(child)
    return children


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.02)
    return False


def test_no_child_outlives_its_pool() -> None:
    with DecodingPool(replace(SMALL, children=2)) as pool:
        pids = alive(pool)
        assert len(pids) == 2
    assert gone(pids)


def test_no_child_outlives_a_server_that_is_killed() -> None:
    program = (
        "import asyncio, os, signal\n"
        "from diptych.serving.guard.decoding_pool import DecodingPool\n"
        "pool = DecodingPool().__enter__()\n"
        "print(*[pool._idle.get()._process.pid for _ in range(2)], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert gone([int(pid) for pid in done.stdout.split()])


def test_a_child_that_cannot_start_is_no_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with DecodingPool(SMALL) as pool, pytest.raises(RuntimeError, match="did not start"):
        asyncio.run(pool.decode(ORDINARY["jpeg"]))


def test_pixels_stay_as_they_were_when_the_next_picture_comes(pool: DecodingPool) -> None:
    first = decode(pool, ORDINARY["png"])[0]
    decode(pool, ORDINARY["transparent png"])
    np.testing.assert_array_equal(first, read_rgb(ORDINARY["png"]))


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    bytes_ = bytearray(data)
    for _ in range(int(random.integers(1, 9))):
        bytes_[int(random.integers(len(bytes_)))] = int(random.integers(256))
    return bytes(bytes_)


def survives(count: int) -> None:
    """Damaged pictures end in pixels or in `ImageError`, in the same way as in place."""
    random = np.random.default_rng(5)
    kinds = list(ORDINARY.values())
    pictures = [mutated(kinds[n % len(kinds)], random) for n in range(count)]
    with DecodingPool(replace(SMALL, children=2)) as pool:
        for found in decode(pool, *pictures):
            assert isinstance(found, ImageError | np.ndarray)


def test_damaged_pictures_end_in_pixels_or_a_reason() -> None:
    survives(400)


@pytest.mark.nightly
def test_20_000_damaged_pictures_end_in_pixels_or_a_reason() -> None:
    survives(20_000)


@pytest.mark.nightly
def test_the_largest_pictures_fit_into_the_memory_of_a_child() -> None:
    """50 megapixels of each kind, at the limits of a server."""
    side = 7071
    with DecodingPool(replace(DecodingLimits(), children=1, cpu_seconds=120, wall_seconds=240)) as pool:
        for mode, kind, options in (
            ("RGB", "JPEG", {"progressive": True}),
            ("CMYK", "JPEG", {}),
            ("RGBA", "PNG", {"compress_level": 1}),
            ("P", "PNG", {"compress_level": 1, "transparency": 0}),
            ("P", "GIF", {}),
            ("RGBA", "WEBP", {"method": 0, "lossless": True}),
        ):
            data = saved(Image.new(mode, (side, side)), kind, **options)
            (pixels,) = decode(pool, data)
            assert isinstance(pixels, np.ndarray), (mode, kind, pixels)
            assert pixels.shape == (side, side, 3)
