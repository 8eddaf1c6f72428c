"""A server under load: dynamic batching beside the same model without it, and searches over 50,000 pictures.

    python benchmarks/serving.py [--seconds 15] [--concurrency 32] [--threads 2] [--batch-waits 0 2 5] [--rows 50000]

Load: clients in a process of their own, each on one connection, ask /v1/embeddings for one text or picture at a time
and wait for the answer; no text comes twice. "batched" is the server as it is by default. "one at a time" is the same
server with batches of one: what concurrent requests would get without batching. "in a loop" is the model alone in a
process, one text or picture after the other, without any server: our fastest path without batches. Ratios are to the
faster of these two. ViT-B/32 with random weights, on which speed does not depend. Pictures are JPEGs of 256 x 256
pixels; their decoding, in the limited child processes, is in every served number and, in this process, in the loop's.

Search: `diptych-mini` over an index of vectors from `clip_like.py` in a folder. First searches have new words in every
question; later ones repeat words, as people do, so that the text's vector is known.
"""

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from captions import captions
from clip_like import Collection, real_embeddings
from index_rate import untrained
from peers import TINY
from PIL import Image
from timing import describe_machine
from vector_index import made_item

from diptych.data.images.transforms import Preprocess
from diptych.embed.encode import embed_images, embed_texts
from diptych.hardware import pick_precision
from diptych.models.architectures import PUBLISHED, Architecture
from diptych.models.image_model import ImageModel
from diptych.pretrained import fingerprint, load
from diptych.search.image_index import Index
from diptych.search.manifest import FORMAT_VERSION, Manifest, next_table, write_manifest
from diptych.search.stores.connect import connect
from diptych.search.stores.image_rows import Batch
from diptych.search.stores.protocol import Database
from diptych.serving.guard.decoding_pool import DecodingPool
from diptych.serving.server import address_of, build_server, build_service, listening
from diptych.serving.server_settings import Settings

HEADER = "| what | path | batch wait ms | a second | p50 ms | p99 ms | p99 / p50 | mean batch | x faster unbatched |"


@dataclass(frozen=True)
class Load:
    """What clients saw."""

    rate: float  # answers a second
    p50: float  # seconds
    p99: float
    refused: int


@contextmanager
def served(
    model: ImageModel, preprocess: Preprocess, database: Database, settings: Settings
) -> Iterator[tuple[str, Callable[[], str]]]:
    """The address of a server in this process, and what gives its page of metrics."""
    index = Index(database)
    with DecodingPool() as decoding, listening("127.0.0.1", 0) as listener:
        service = build_service(index, model, preprocess, "benchmark", settings, decode=decoding.decode)
        server = build_server(service, settings)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        while not server.started:
            thread.join(0.01)
        try:
            yield address_of(listener), lambda: service.metrics.page().decode()
        finally:
            server.stop()
            thread.join()


def offered(url: str, path: str, bodies: Sequence[bytes], concurrency: int, seconds: float) -> Load:
    """What `concurrency` clients see that ask in turn for `bodies`, from a process of their own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_in_clients, (url, path, list(bodies), concurrency, seconds))


def _in_clients(url: str, path: str, bodies: list[bytes], concurrency: int, seconds: float) -> Load:
    return asyncio.run(_load(url, path, bodies, concurrency, seconds))


async def _load(url: str, path: str, bodies: list[bytes], concurrency: int, seconds: float) -> Load:
    host, _, port = url.removeprefix("http://").rpartition(":")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: "
    )
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    following = iter(requests)
    warm_up = min(1.0, seconds / 4)
    begin, took, refused = time.perf_counter() + warm_up, [], 0

    async def client() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection(host, int(port))
        while (now := time.perf_counter()) < begin + seconds:
            request = next(following, None)
            if request is None:
                raise RuntimeError("the prepared requests did not last; prepare more")
            writer.write(request)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            status = answer.split(None, 2)[1]
            if status == b"429":
                refused += 1
            elif status != b"200":
                raise RuntimeError(f"answered {answer.decode()}")
            elif now >= begin:
                took.append(time.perf_counter() - now)
        writer.close()

    await asyncio.gather(*(client() for _ in range(concurrency)))
    p50, p99 = np.percentile(took, [50, 99])
    return Load(len(took) / seconds, float(p50), float(p99), refused)


def looped(one: Callable[[int], object], seconds: float) -> Load:
    """The same of a function that is called again and again."""
    one(0)
    took: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() < begin + seconds:
        start = time.perf_counter()
        one(len(took) + 1)
        took.append(time.perf_counter() - start)
    p50, p99 = np.percentile(took, [50, 99])
    return Load(len(took) / (time.perf_counter() - begin), float(p50), float(p99), 0)


def filled(database: Database, model: ImageModel, preprocess: Preprocess, vectors: np.ndarray) -> None:
    table, serial = next_table(None, "benchmark", fingerprint(model, preprocess), vectors.shape[1])
    with database.writing():
        store = database.create(table.name, table.dim)
        for start in range(0, len(vectors), 1024):
            rows = range(start, min(start + 1024, len(vectors)))
            store.upsert(Batch([made_item(row) for row in rows], vectors[start : start + 1024]))
            if start // 1024 % 32 == 31:
                store.optimize()
        store.optimize(force=True)
        write_manifest(database, Manifest(FORMAT_VERSION, current=table, serial=serial))


def jpegs(count: int) -> list[bytes]:
    """Noise that is smooth enough to be like a photograph, no two alike."""
    dice = np.random.default_rng(0)
    files = []
    for _ in range(count):
        small = Image.fromarray(dice.integers(0, 256, (32, 32, 3), np.uint8))
        file = io.BytesIO()
        small.resize((256, 256), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def throughput(
    architecture: Architecture, seconds: float, concurrency: int, waits: Sequence[float]
) -> Iterator[str]:
    """Rows of the table of batching."""
    model, preprocess = untrained(architecture)
    with tempfile.TemporaryDirectory() as folder:
        database = connect(Path(folder) / "index")
        # One picture: the load does not search.
        filled(database, model, preprocess, np.ones((1, model.architecture.embed_dim), np.float16))
        yield from batching(Bench(model, preprocess, database, concurrency, seconds), waits)


def batching(bench: "Bench", waits: Sequence[float]) -> Iterator[str]:
    """Rows of texts and of images: in a loop, one at a time, and batched with each wait."""
    model, preprocess, concurrency, seconds = bench.model, bench.preprocess, bench.concurrency, bench.seconds
    words, files = captions(500, None), jpegs(64)
    texts = (f"{words[number % 500]}, number {number}" for number in range(10**9))
    kinds: dict[str, tuple[Callable[[int], object], Callable[[], bytes]]] = {
        "text": (
            lambda _: embed_texts(model, [next(texts)], truncate=True),
            lambda: json.dumps(
                {"input": next(texts), "truncate": True, "encoding_format": "base64"}
            ).encode(),
        ),
        "image": (
            lambda number: embed_images(model, preprocess, [files[number % len(files)]]),
            _cycle(
                [
                    json.dumps(
                        {"input": [{"image": base64.b64encode(file).decode()}], "encoding_format": "base64"}
                    ).encode()
                    for file in files
                ]
            ),
        ),
    }
    plain = Settings(text_queue=2 * concurrency + 256, image_queue=2 * concurrency + 64)
    for kind, (alone, body) in kinds.items():
        loop = looped(alone, seconds)
        singles = replace(plain, text_batch=1, image_batch=1, batch_wait=0.0)
        one, _ = bench.measure(singles, body, loop.rate)
        fastest = max(loop.rate, one.rate)
        yield _row(f"{kind} | in a loop", loop, fastest)
        yield _row(f"{kind} | one at a time", one, fastest, wait=0.0, mean=1.0)
        for wait in waits:
            load, mean = bench.measure(replace(plain, batch_wait=wait / 1000), body, 8 * fastest)
            yield _row(f"{kind} | batched", load, fastest, wait=wait, mean=mean)


@dataclass(frozen=True)
class Bench:
    """One model behind servers of different settings."""

    model: ImageModel
    preprocess: Preprocess
    database: Database
    concurrency: int
    seconds: float

    def measure(self, settings: Settings, body: Callable[[], bytes], most: float) -> tuple[Load, float]:
        """What clients saw, and the mean size of a batch. most: answers a second to prepare for."""
        bodies = [body() for _ in range(int(2 * most * (self.seconds + 2)) + 4 * self.concurrency)]
        with served(self.model, self.preprocess, self.database, settings) as (url, metrics):
            load = offered(url, "/v1/embeddings", bodies, self.concurrency, self.seconds)
            page = metrics()
        sums = [line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("diptych_batch_size_")]
        # Of both kinds: one of them has nothing but the pass that warms up.
        total = sum(float(value) for name, value in sums if "_sum" in name)
        count = sum(float(value) for name, value in sums if "_count" in name)
        return load, total / count


def _cycle(values: Sequence[bytes]) -> Callable[[], bytes]:
    place = iter(range(10**9))
    return lambda: values[next(place) % len(values)]


def _row(
    path: str, load: Load, fastest: float, *, wait: float | None = None, mean: float | None = None
) -> str:
    shown_wait = "" if wait is None else f"{wait:g}"
    shown_mean = "" if mean is None else f"{mean:.1f}"
    refused = f" ({load.refused} refused)" if load.refused else ""
    return (
        f"| {path}{refused} | {shown_wait} | {load.rate:.1f} | {1000 * load.p50:.1f} | {1000 * load.p99:.1f} "
        f"| {load.p99 / load.p50:.1f} | {shown_mean} | {load.rate / fastest:.2f} |"
    )


def searches(rows: int, count: int) -> Iterator[str]:
    """Rows of the table of searches, one client at a time."""
    model, preprocess = load("diptych-mini", "cpu")
    vectors = Collection(rows, model.architecture.embed_dim, 0, real_embeddings()).images()
    with tempfile.TemporaryDirectory() as folder:
        database = connect(Path(folder) / "index")
        filled(database, model, preprocess, vectors)
        words = captions(count + 100, None)
        new = [json.dumps({"query": text, "limit": 48}).encode() for text in dict.fromkeys(words)]
        known = _cycle(new[:20])
        file = base64.b64encode(jpegs(1)[0]).decode()
        picture = json.dumps({"query": [{"image": file}], "limit": 48}).encode()
        kinds = {
            "new words": new * 100,
            "known words": [known() for _ in range(100_000)],
            "a picture": [picture] * 100_000,
        }
        for name, bodies in kinds.items():
            with served(
                model, preprocess, database, Settings(text_cache=0 if name == "new words" else 4096)
            ) as (
                url,
                _,
            ):
                load_ = offered(url, "/v1/search", bodies, 1, count / 20)
            yield f"| {rows:,} | {name} | {1000 * load_.p50:.1f} | {1000 * load_.p99:.1f} |"
        database.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument(
        "--threads", type=int, help="processor cores of the model; PyTorch's choice when not given"
    )
    parser.add_argument(
        "--batch-waits", type=float, nargs="+", default=[1000 * Settings().batch_wait], help="ms"
    )
    parser.add_argument("--rows", type=int, default=50_000, help="pictures to search; 0: none")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    architecture, searched = PUBLISHED["ViT-B/32"], 200
    if arguments.quick:
        architecture, searched, arguments.seconds, arguments.rows = TINY, 10, 0.5, 2000
    print(describe_machine("torch", "fastapi", "uvicorn", "lancedb") + "\n")
    precision = pick_precision("auto", "cpu")
    print(
        f"{arguments.concurrency} clients, {arguments.seconds:g} s each, {precision}\n\n{HEADER}\n|{'---|' * 9}"
    )
    for row in throughput(architecture, arguments.seconds, arguments.concurrency, arguments.batch_waits):
        print(row, flush=True)
    if arguments.rows:
        print("\n| pictures | search by | p50 ms | p99 ms |\n|---|---|---|---|")
        for row in searches(arguments.rows, searched):
            print(row, flush=True)


if __name__ == "__main__":
    main()
