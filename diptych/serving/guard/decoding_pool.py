"""Foreign pictures are decoded in other processes, which may take little and whose death costs one picture.

Image decoders are large programs in C that meet whatever a stranger sends. Here they run in children with limits on
memory, processor time, wall time, pixels and bytes; the server itself only ever sees pixels of a known size.
The children are started by `exec`, never forked from the server, whose threads would not survive it.
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

_KEPT_BYTES = 48 << 20  # of shared memory, 16 megapixels; what a larger picture took goes back to the system
_START_SECONDS = 60.0  # a child imports numpy and Pillow: half a second, unless the machine is very busy


@dataclass(frozen=True, slots=True)
class DecodingLimits:
    """What one picture may cost, and how many are decoded at once."""

    # The four formats that browsers make; the decoders of other formats never run on a stranger's bytes.
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
        1_300_000_000  # of one child, beyond its libraries; 50 megapixels with transparency fit
    )
    cpu_seconds: int = 10  # whole seconds of processor time
    wall_seconds: float = 30.0  # a wait for a processor included
    children: int = 2  # processes, and so pictures at once


class DecodingPool:
    """A few children that decode pictures. A context manager: leaving it ends them.

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
        """The upright pixels (height, width, 3), 8-bit RGB, of an image file; `Preprocess` and `preview` take them.

        Raises:
            ImageError: it is no image, too large, damaged, or takes too much time or memory to decode.
        """
        if len(data) > self.limits.image.file_bytes:
            raise ImageError(
                f"image of {len(data):,} bytes: larger than {self.limits.image.file_bytes:,} bytes, the most that "
                "is read; save a smaller copy"
            )
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, data)

    def _decode(self, data: bytes) -> Pixels:
        child = self._idle.get()  # at once: there are as many threads as children
        try:
            return child.decode(data)
        finally:
            if not child.alive:
                child.end()
                # Its successor starts while nobody waits for it.
                child = _Child(self.limits)
            self._idle.put(child)


class _ChildFailedError(Exception):
    """The child did not keep to the protocol; its socket is of no more use."""


class _Child:
    """One process of `decoding_child`, used by one thread at a time."""

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
            start_new_session=True,  # an interrupt at the terminal is for the server, which ends its children
        )

    def decode(self, data: bytes) -> Pixels:
        if not self._is_ready:
            self._wait_until_ready()
        try:
            self._memory[: len(data)] = data
            self._connection.settimeout(self._limits.wall_seconds)
            self._connection.sendall(REQUEST.pack(len(data)))
            kind, first, second = self._reply()
            # What a child says is as foreign as the picture it read.
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
        # The child sends a reply in one piece; half a one is the end of it.
        reply = self._connection.recv(REPLY.size, socket.MSG_WAITALL)
        if len(reply) != REPLY.size:
            raise _ChildFailedError
        kind, first, second = REPLY.unpack(reply)
        return kind, first, second

    def _pixels(self, width: int, height: int) -> Pixels:
        count = 3 * width * height
        # A copy: the memory is the child's to change.
        pixels = np.frombuffer(self._memory, np.uint8, count).reshape(height, width, 3).copy()
        if count > _KEPT_BYTES and hasattr(mmap, "MADV_REMOVE"):
            self._memory.madvise(mmap.MADV_REMOVE, _KEPT_BYTES)
        return pixels

    def _verdict(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"not decoded within {self._limits.wall_seconds:g} seconds; make a smaller copy"
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "its decoder failed; save it again as JPEG or PNG"
        if code == -signal.SIGXCPU:
            return f"takes more than {self._limits.cpu_seconds} seconds to decode; make a smaller copy"
        return f"its decoder crashed (exit status {code}); save it again as JPEG or PNG"


def _shared_file(size: int) -> IO[bytes]:
    """A file in memory of `size` bytes, which the other side cannot shorten under our feet."""
    if sys.platform != "linux":  # a child that was led astray could shorten this one, and so stop the server
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        file.truncate(size)
        return file
    descriptor = os.memfd_create("picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return os.fdopen(descriptor, "r+b")


def _environment() -> dict[str, str]:
    """Where this process finds its modules, and nothing else that it knows: tokens stay here."""
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # Threads would count against the limit on memory, 64 MB of address space each.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
