"""A model that takes its time, and a client that speaks HTTP without getting in the way."""

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from diptych.embed.encode import Vectors, encode_tokens
from diptych.models.image_model import ImageModel
from diptych.serving import served_model


class SlowTexts:
    """In place of `encode_tokens`: each pass waits for the gate, and for some seconds. `sizes` are the batches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self._encode = encode_tokens
        self._seconds = seconds
        monkeypatch.setattr(served_model, "encode_tokens", self._slowly)

    def _slowly(self, model: ImageModel, tokens: Any) -> Vectors:
        self.sizes.append(len(tokens))
        self.gate.wait(20)
        threading.Event().wait(self._seconds)
        return self._encode(model, tokens)


@dataclass(frozen=True)
class Answer:
    """What a server answered; status 0 where it closed the connection instead."""

    status: int
    headers: dict[str, str]
    body: bytes


def request_of(body: object, path: str = "/v1/embeddings") -> bytes:
    """The bytes of a POST."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """The next answer of a connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except (asyncio.IncompleteReadError, ConnectionError):
        return Answer(0, {}, b"")
    return Answer(int(head[0].split()[1]), headers, body)


async def ask(address: tuple[str, int], request: bytes) -> Answer:
    """The answer to one request, on a connection of its own."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        return await read_answer(reader)
    finally:
        writer.transport.abort()


async def ask_all(address: tuple[str, int], requests: Sequence[bytes], clients: int) -> list[Answer]:
    """The answers to requests that some clients send as fast as they are answered, each on one connection."""
    waiting = iter(requests)
    answers: list[Answer] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection(*address)
        for request in waiting:
            writer.write(request)
            answers.append(await read_answer(reader))
            if answers[-1].status == 0:
                break
        writer.transport.abort()

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


def host_and_port(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)
