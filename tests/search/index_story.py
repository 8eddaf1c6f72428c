"""Processes that write to an index until they are killed, and processes that read it meanwhile.

Run by `test_kills.py`, each in a process of its own: `index_story.py write FOLDER MODE SEED` and
`index_story.py read FOLDER`. A writer says on stdout what it is about to do and what it has done, a JSON value
a line; both begin when they get a line on stdin. A kill leaves the page cache, so it is no power cut.
"""

import hashlib
import itertools
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.search.building.removal import remove
from diptych.search.building.writer import Writer
from diptych.search.image_index import Index
from diptych.search.manifest import drop_leftovers, read_manifest
from diptych.search.stores.connect import connect
from diptych.search.stores.filters import Membership
from diptych.search.stores.image_rows import Batch, Item, item_id

DIM = 8
# And "lie": the broken twin, which acknowledges its second batch, dies, and has not written it.
MODES = ("add", "delete", "replace", "compact", "purge")
BATCH = 12
READERS = 4


@dataclass(frozen=True)
class Model:
    name: str = "fake"
    fingerprint: str = "f" * 64
    dim: int = DIM


def content(number: int, generation: int) -> bytes:
    return b"picture %d, generation %d" % (number, generation)


def vector_of(data: bytes) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float16)


def thumbnail_of(data: bytes) -> bytes:
    return b"small copy of " + data


def batch(numbers: list[int], generation: int) -> tuple[Batch, list[bytes]]:
    data = [content(number, generation) for number in numbers]
    items = [
        Item(
            id=item_id(str(number)),
            uri=str(number),
            source="story",
            size=len(one),
            mtime_ns=None,
            sha256=hashlib.sha256(one).hexdigest(),
            caption=one.decode(),
        )
        for number, one in zip(numbers, data, strict=True)
    ]
    vectors = np.array([vector_of(one) for one in data])
    return Batch(items, vectors), [thumbnail_of(one) for one in data]


def wrong(item: Item, vector: np.ndarray) -> str | None:
    """What does not fit together in a row, if anything does not."""
    data = (item.caption or "").encode()
    if item.sha256 != hashlib.sha256(data).hexdigest() or item.id != item_id(item.uri):
        return f"{item}: a row of two pictures"
    if vector.tobytes() != vector_of(data).tobytes():
        return f"{item}: the vector of another picture"
    return None


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def write(folder: Path, mode: str, seed: int) -> None:
    """Change pictures for ever. Their numbers are used by no other writer."""
    dice, numbers = random.Random(seed), itertools.count(seed * 100_000)
    database = connect(folder)
    say(ready=True)
    sys.stdin.readline()
    while True:
        with database.writing():
            drop_leftovers(database, read_manifest(database))
            writer = Writer(database, read_manifest(database), Model(), rebuild=False)
            for step in range(3):
                size = 3 if mode == "compact" else BATCH
                mine = list(itertools.islice(numbers, size))
                change(writer, mine, 0, lie=mode == "lie")
                some = mine[: dice.randrange(1, size)]
                if mode == "replace":
                    change(writer, some, 1)
                elif mode == "delete":
                    say(began="delete", numbers=some)
                    writer.delete(ids(some))
                    say(done=True)
                elif mode == "compact" and step == 2:
                    assert writer.store is not None
                    writer.store.optimize(force=True)
        if mode == "purge":
            say(began="delete", numbers=some)
            remove(folder, Membership("id", tuple(ids(some))), purge=True)
            say(done=True)


def ids(numbers: list[int]) -> list[str]:
    return [item_id(str(number)) for number in numbers]


def change(writer: Writer, numbers: list[int], generation: int, *, lie: bool = False) -> None:
    say(began="write", numbers=numbers, generation=generation)
    if lie and numbers[0] % 100_000:
        say(done=True)
        os.kill(os.getpid(), signal.SIGKILL)
    writer.upsert(*batch(numbers, generation), replaced=ids(numbers))
    say(done=True)


def read(folder: Path) -> None:
    """Search in several threads until stdin ends; then say how much was read, and what was wrong."""
    say(ready=True)
    sys.stdin.readline()
    stop = threading.Event()
    found: list[str] = []
    counts: list[int] = []

    def searching(seed: int) -> None:
        index, dice, count = Index(folder, freshness=0), np.random.default_rng(seed), 0
        while not stop.is_set() or not (count or found):
            try:
                for problem in looked(index, dice):
                    found.append(problem)
                count += 1
            except Exception as error:  # whatever a reader meets is a finding
                found.append(f"{type(error).__name__}: {error}")
        counts.append(count)

    threads = [threading.Thread(target=searching, args=(seed,)) for seed in range(READERS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    say(searches=sum(counts), wrong=found[:5])


def looked(index: Index, dice: np.random.Generator) -> Iterator[str]:
    hits = index.search(dice.normal(size=DIM).astype(np.float32), count=40)
    if len({hit.item.id for hit in hits}) != len(hits):
        yield "a picture was found twice"
    batch = index.get([hit.item.id for hit in hits])
    for item, vector in zip(batch.items, batch.vectors, strict=True):
        if problem := wrong(item, vector):
            yield problem
    for hit in hits[:3]:
        data = index.thumbnail(hit.item.id)
        # None: removed since. Of a picture that was replaced since: the new one's.
        if data is not None and not data.startswith(b"small copy of picture " + hit.item.uri.encode()):
            yield f"{hit.item}: the thumbnail {data!r}"


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        read(Path(sys.argv[2]))
