"""Decode untrusted images in child processes with tight limits; a crash costs one image.

Image decoders are large C programs that read whatever a stranger sends. Here they run in children with limits on
memory, processor time, wall time, pixels and bytes. The server itself only sees pixels of a known size. Children are
started with `exec`, never forked from the server, because its threads would not survive a fork.
"""

import asyncio
import fcntl
import json
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import IO, Self

import numpy as np

from diptych.data.images.decoding import Limits, Pixels
from diptych.errors import ImageError
from diptych.serving.guard.decoding_child import LONGEST_REASON, PIXELS, READY, REFUSED, REPLY, REQUEST

_KEPT_BYTES = (
    48 << 20
)  # shared memory to keep: 16 megapixels; memory of larger images goes back to the system
_START_SECONDS = 60.0  # a child imports numpy and Pillow: half a second, unless the machine is very busy


@dataclass(frozen=True, slots=True)
class DecodingLimits:
    """Limits of one image, and how many are decoded at once."""

    # The four formats that browsers produce; decoders of other formats never run on untrusted bytes.
    image: Limits = field(
        default_factory=lambda: Limits(
            file_bytes=25_000_000,
            pixels=50_000_000,
            side=65_535,
            formats=("JPEG", "PNG", "WebP", "GIF"),
            reduced=False,
        )
    )
    memory_bytes: int = (
        1_300_000_000  # of one child, beyond its libraries; enough for 50 megapixels with transparency
    )
    cpu_seconds: int = 10  # whole seconds of processor time
    wall_seconds: float = 30.0  # includes waiting for a processor
    children: int = 2  # processes, and so images at once


class DecodingPool:
    """A few children that decode images. A context manager: leaving it ends them.

    with DecodingPool() as pool:
        pixels = await pool.decode(data)
    """

    def __init__(self, limits: DecodingLimits | None = None) -> None:
        self.limits = limits or DecodingLimits()
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(self.limits.children, thread_name_prefix="decoding")

    def __enter__(self) -> Self:
        for _ in range(self.limits.children):
            self._idle.put(_Child(self.limits))
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().end()

    async def decode(self, data: bytes) -> Pixels:
        """Decode an image file to upright pixels (height, width, 3), 8-bit RGB, for `Preprocess` and `preview`.

        Raises:
            ImageError: the file is not an image, is too large or damaged, or takes too much time or memory to decode.
        """
        if len(data) > self.limits.image.file_bytes:
            raise ImageError(
                f"image of {len(data):,} bytes: expected at most {self.limits.image.file_bytes:,} bytes; save a "
                "smaller copy"
            )
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, data)

    def _decode(self, data: bytes) -> Pixels:
        child = self._idle.get()  # never waits: there are as many threads as children
        try:
            return child.decode(data)
        finally:
            if not child.alive:
                child.end()
                # Start its successor now, before the next image needs it.
                child = _Child(self.limits)
            self._idle.put(child)


class _ChildFailedError(Exception):
    """The child broke the protocol; its socket cannot be used any more."""


class _Child:
    """A process of `decoding_child`, used by one thread at a time."""

    def __init__(self, limits: DecodingLimits) -> None:
        self._limits = limits
        self.alive = True
        self._is_ready = False
        self._connection, theirs = socket.socketpair()
        size = max(limits.image.file_bytes, 3 * limits.image.pixels)
        with theirs, _shared_file(size) as file:
            self._memory = mmap.mmap(file.fileno(), size)
            self._process = self._start((theirs.fileno(), file.fileno()))

    def _start(self, descriptors: tuple[int, int]) -> subprocess.Popen[bytes]:
        settings = {
            "image": asdict(self._limits.image),
            "memory_bytes": self._limits.memory_bytes,
            "cpu_seconds": self._limits.cpu_seconds,
        }
        module = "diptych.serving.guard.decoding_child"
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, *map(str, descriptors), json.dumps(settings)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_environment(),
            start_new_session=True,  # an interrupt at the terminal goes to the server, which ends its children
        )

    def decode(self, data: bytes) -> Pixels:
        if not self._is_ready:
            self._wait_until_ready()
        try:
            self._memory[: len(data)] = data
            self._connection.settimeout(self._limits.wall_seconds)
            self._connection.sendall(REQUEST.pack(len(data)))
            kind, first, second = self._reply()
            # The reply of a child is as untrusted as the image.
            if kind == PIXELS and 0 < first * second <= self._limits.image.pixels:
                return self._pixels(first, second)
            if kind == REFUSED and first <= LONGEST_REASON:
                raise ImageError(self._memory[:first].decode(errors="replace"))
            raise _ChildFailedError
        except (OSError, _ChildFailedError) as error:
            self.alive = False
            raise ImageError(f"image of {len(data):,} bytes: {self._verdict(error)}") from error

    def end(self) -> None:
        self._connection.close()
        self._memory.close()
        self._process.kill()
        self._process.wait()

    def _wait_until_ready(self) -> None:
        try:
            self._connection.settimeout(_START_SECONDS)
            if self._reply()[0] != READY:
                raise _ChildFailedError
        except (OSError, _ChildFailedError) as error:
            self.alive = False
            code = self._process.poll()
            raise RuntimeError(f"the decoding process did not start (exit status {code})") from error
        self._is_ready = True

    def _reply(self) -> tuple[int, int, int]:
        # A child sends its reply in one piece; a partial reply means that it died.
        reply = self._connection.recv(REPLY.size, socket.MSG_WAITALL)
        if len(reply) != REPLY.size:
            raise _ChildFailedError
        kind, first, second = REPLY.unpack(reply)
        return kind, first, second

    def _pixels(self, width: int, height: int) -> Pixels:
        count = 3 * width * height
        # Copy, because the child can change the shared memory.
        pixels = np.frombuffer(self._memory, np.uint8, count).reshape(height, width, 3).copy()
        if count > _KEPT_BYTES and hasattr(mmap, "MADV_REMOVE"):
            self._memory.madvise(mmap.MADV_REMOVE, _KEPT_BYTES)
        return pixels

    def _verdict(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"decoding took more than {self._limits.wall_seconds:g} seconds; save a smaller copy"
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "the decoder failed; save the image again as JPEG or PNG"
        if code == -signal.SIGXCPU:
            return f"decoding took more than {self._limits.cpu_seconds} seconds of processor time; save a smaller copy"
        return f"the decoder crashed (exit status {code}); save the image again as JPEG or PNG"


def _shared_file(size: int) -> IO[bytes]:
    """Create a file of `size` bytes in memory. On Linux the child cannot shorten it."""
    if sys.platform != "linux":  # a hijacked child could shorten this file, and so stop the server
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        file.truncate(size)
        return file
    descriptor = os.memfd_create("image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return os.fdopen(descriptor, "r+b")


def _environment() -> dict[str, str]:
    """Return the environment of a child: the module path, and no tokens or other secrets."""
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # Each thread would count 64 MB of address space against the memory limit.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
