"""The process that decodes foreign pictures for `decoding`: one socket, a little memory, nothing else.

Started as `python -m diptych.serving.decoding_child SOCKET LIMITS`. Before it reads its first picture it gives up
whatever decoding does not need: more memory, new files and sockets, writing to files, core dumps. A decoder
that is led astray can crash this process, or send wrong pixels.
"""

import json
import math
import resource
import socket
import struct
import sys
import time
from pathlib import Path

from diptych.data.images import Limits, Pixels, read_rgb
from diptych.errors import ImageError

REQUEST = struct.Struct("!Q")  # bytes of the file that follows
REPLY = struct.Struct("!BII")  # what follows: READY nothing; PIXELS width, height; REFUSED bytes of text, 0
READY, PIXELS, REFUSED = range(3)
LONGEST_MESSAGE = 2000  # bytes of a text


def main(arguments: list[str]) -> None:
    """Answer pictures until the other end closes the socket."""
    connection = socket.socket(fileno=int(arguments[0]))
    settings = json.loads(arguments[1])
    limits = Limits(**settings["image"])
    _give_up_the_rest(settings["memory_bytes"])
    connection.sendall(REPLY.pack(READY, 0, 0))
    while (head := _receive(connection, REQUEST.size)) is not None:
        data = _receive(connection, *REQUEST.unpack(head))
        if data is None:
            return
        _allow_processor_time(settings["cpu_seconds"])
        _answer(connection, bytes(data), limits, settings["memory_bytes"])


def _answer(connection: socket.socket, data: bytes, limits: Limits, memory_bytes: int) -> None:
    try:
        pixels: Pixels = read_rgb(data, limits=limits)
        height, width, _ = pixels.shape
        connection.sendall(REPLY.pack(PIXELS, width, height))
        connection.sendall(memoryview(pixels).cast("B"))
        return
    except ImageError as error:
        refusal = str(error)
        if isinstance(error.__cause__, MemoryError):
            refusal = _too_much_memory(data, memory_bytes)
    except MemoryError:
        refusal = _too_much_memory(data, memory_bytes)
    text = refusal.encode(errors="replace")[:LONGEST_MESSAGE]
    connection.sendall(REPLY.pack(REFUSED, len(text), 0) + text)


def _too_much_memory(data: bytes, memory_bytes: int) -> str:
    return (
        f"image of {len(data):,} bytes: needs more than {memory_bytes:,} bytes of memory to decode; "
        "make a smaller copy"
    )


def _receive(connection: socket.socket, count: int) -> bytearray | None:
    """Exactly `count` bytes; None where the other end is gone."""
    data = bytearray(count)
    view = memoryview(data)
    while view:
        received = connection.recv_into(view)
        if not received:
            return None
        view = view[received:]
    return data


def _give_up_the_rest(memory_bytes: int) -> None:
    # Address space is what can be limited; interpreter and decoders already hold this many pages of it.
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    held = pages * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, held + memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),  # threads included; does not hold for root
        (resource.RLIMIT_NOFILE, 0),  # none further; the open socket stays open
    ):
        resource.setrlimit(what, (most, most))


def _allow_processor_time(seconds: int) -> None:
    """The next picture may take this many seconds; then the kernel ends this process with SIGXCPU."""
    limit = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(sys.argv[1:])
