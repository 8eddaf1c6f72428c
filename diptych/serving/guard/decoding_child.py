"""The child process that decodes untrusted images for `decoding_pool`: one socket, shared memory, nothing else.

It is started as `python -m diptych.serving.guard.decoding_child SOCKET MEMORY LIMITS`: two descriptors and JSON. Before
the first image it gives up what decoding does not need: more memory, new files and sockets, writing to files, core
dumps. A hijacked decoder can only crash this process or return wrong pixels.
"""

import json
import math
import mmap
import os
import resource
import socket
import struct
import sys
import time
from pathlib import Path

import numpy as np

from diptych.data.images.decoding import Limits, Pixels, read_rgb
from diptych.errors import ImageError

REQUEST = struct.Struct("!Q")  # bytes of the file, at the beginning of the shared memory
# The reply: a kind and two numbers. PIXELS: width and height of 8-bit RGB at the beginning of the shared memory.
# REFUSED: the bytes of a text there, and 0. READY: waits for the first image; 0 and 0.
REPLY = struct.Struct("!BII")
READY, PIXELS, REFUSED = range(3)
LONGEST_REASON = 2000  # bytes of a text


def main(arguments: list[str]) -> None:
    """Decode images until the other end closes the socket."""
    connection = socket.socket(fileno=int(arguments[0]))
    shared = np.frombuffer(mmap.mmap(int(arguments[1]), 0), np.uint8)
    os.close(int(arguments[1]))
    settings = json.loads(arguments[2])
    limits = Limits(**settings["image"])
    _give_up_the_rest(settings["memory_bytes"])
    connection.sendall(REPLY.pack(READY, 0, 0))
    while len(request := connection.recv(REQUEST.size, socket.MSG_WAITALL)) == REQUEST.size:
        (count,) = REQUEST.unpack(request)
        _allow_processor_time(settings["cpu_seconds"])
        connection.sendall(_answer(shared, count, limits, settings["memory_bytes"]))


def _answer(shared: Pixels, count: int, limits: Limits, memory_bytes: int) -> bytes:
    """Replace the file in the shared memory by its pixels, or by the reason why it cannot be decoded."""
    try:
        pixels = read_rgb(shared[:count].tobytes(), limits=limits)
        height, width, _ = pixels.shape
        np.copyto(shared[: pixels.size].reshape(pixels.shape), pixels)
        return REPLY.pack(PIXELS, width, height)
    except (ImageError, MemoryError) as error:
        # Decoders report a lack of memory as one more kind of unreadable file.
        short = isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError)
        reason = (
            f"image of {count:,} bytes: decoding needs more than {memory_bytes:,} bytes of memory; save a smaller copy"
            if short
            else str(error)
        )
    text = np.frombuffer(reason.encode(errors="replace"), np.uint8)[:LONGEST_REASON]
    shared[: text.size] = text
    return REPLY.pack(REFUSED, text.size, 0)


def _give_up_the_rest(memory_bytes: int) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,  # includes threads; not enforced for root
        resource.RLIMIT_NOFILE: 0,  # no new ones; the open socket stays open
    }
    held = Path("/proc/self/statm")  # pages of address space; only Linux has it and enforces the limit
    if held.exists():
        pages = int(held.read_text("ascii").split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory_bytes
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))


def _allow_processor_time(seconds: int) -> None:
    """Allow this many seconds for the next image; then the kernel ends this process with SIGXCPU."""
    limit = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(sys.argv[1:])
