"""Search over 10 thousand to a million vectors: Diptych's index beside numpy, faiss and usearch.

    python benchmarks/vector_index.py [--rows 10000 20000 50000 200000 1000000] [--queries 200] [--folder DIR]
        [--engines NAME ...] [--probes 8 16 24 40] [--out FILE]

The vectors come from `clip_geometry.py`, 512 wide, as OpenAI's ViT-B/32 puts photographs and captions: half of the
questions are images that are not in the index, half are texts of such images. A row says how long writing took and how
long the approximate index took to build, the space on the disk, the median and the 95th percentile of one question's
time, and recall: which part of the ten best that comparing with every vector finds are among the ten that the engine
returns, for images and for texts. Diptych's times are those of its store as `diptych search` uses it: metadata written
with every vector and returned with every result. The other engines have none.
Tables of fewer rows than `EXACT_ROWS` get an approximate index here too: the first two sizes show where it begins to
pay. --probes adds Diptych with other numbers of partitions looked into.

Engines run one after the other, with one folder at a time. All of it should take about an hour on two cores, nearly all
of that in the graphs of faiss and usearch over the last size (`--engines numpy diptych`: some ten minutes), 6 GB of
memory and 3 GB of disk. --quick only sees that it runs.
"""

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from clip_geometry import Drawn, Floats, Half
from exact_best import ExactBest
from timing import describe_machine
from usearch.index import Index as UsearchIndex

from diptych.search.stores import lance
from diptych.search.stores.filter_syntax import parse
from diptych.search.stores.image_rows import Batch, Item, item_id

ROWS = [10_000, 20_000, 50_000, 200_000, 1_000_000]
K = 10
EXACT_QUESTIONS = 40  # of each kind: their answers are known, and over a million vectors one takes a second
PQ_ROWS = (
    39 * 256
)  # faiss wants 39 vectors for each of a code's 256 values; below, training takes a minute for nothing
WARM_UP = 20  # exact searches
HEADER = "| vectors | engine | write s | build s | disk MB | p50 ms | p95 ms | recall@10 images | texts |"

Search = Callable[[Floats], list[int]]


@dataclass(frozen=True)
class Built:
    """An engine that is ready for questions; `search` gives the numbers of the rows that it finds."""

    name: str
    write: float | None  # seconds
    build: float | None
    disk: float | None  # MB
    search: Search


@dataclass(frozen=True)
class Questions:
    """Both kinds, and the ten best rows for each."""

    images: Floats
    texts: Floats
    best_images: list[set[int]]
    best_texts: list[set[int]]


def best_rows(vectors: Half, questions: Floats) -> list[set[int]]:
    """The `K` best rows for each question, by comparing with every vector in float32."""
    best = ExactBest(questions, K)
    for start in range(0, len(vectors), 65_536):
        best.add(vectors[start : start + 65_536])
    return best.rows()


def with_numpy(vectors: Half, folder: Path) -> Iterator[Built]:
    """Every vector in memory, in float32."""
    whole = vectors.astype(np.float32)

    def search(question: Floats) -> list[int]:
        scores = whole @ question
        best = np.argpartition(-scores, K)[:K]
        return [int(row) for row in best[np.argsort(-scores[best])]]

    yield Built("numpy float32 in memory, exact", None, None, None, search)


def with_faiss(vectors: Half, folder: Path) -> Iterator[Built]:
    dim, parts = vectors.shape[1], max(1, len(vectors) // lance.PARTITION_ROWS)
    settings = {
        f"faiss IVF{parts},SQ8": f"nprobe={min(parts, lance.PROBES)}",
        "faiss HNSW32,SQ8": "efSearch=64",
    }
    if len(vectors) >= PQ_ROWS:
        settings[f"faiss IVF{parts},PQ64"] = f"nprobe={min(parts, lance.PROBES)}"
    for name, setting in settings.items():
        index = faiss.index_factory(dim, name.removeprefix("faiss "), faiss.METRIC_INNER_PRODUCT)
        whole, start = vectors.astype(np.float32), time.perf_counter()
        index.train(whole)
        index.add(whole)
        built = time.perf_counter() - start
        del whole
        faiss.write_index(index, str(folder / "faiss"))
        faiss.ParameterSpace().set_index_parameters(index, setting)  # type: ignore[arg-type] # annotated as a number

        def search(question: Floats, index: Any = index) -> list[int]:
            return [int(row) for row in index.search(question[None], K)[1][0]]

        yield Built(f"{name}, {setting}", None, built, size_of(folder / "faiss"), search)


def with_usearch(vectors: Half, folder: Path) -> Iterator[Built]:
    index = UsearchIndex(ndim=vectors.shape[1], metric="cos", dtype="f16")
    start = time.perf_counter()
    index.add(np.arange(len(vectors)), vectors, threads=torch.get_num_threads())
    built = time.perf_counter() - start
    index.save(str(folder / "usearch"))

    def search(question: Floats) -> list[int]:
        return [int(row) for row in index.search(question, K).keys]

    yield Built("usearch HNSW float16", None, built, size_of(folder / "usearch"), search)


def with_diptych(vectors: Half, folder: Path, probes: list[int]) -> Iterator[Built]:
    database = lance.LanceDatabase(folder / "index", freshness=3600)
    (folder / "index").mkdir()
    numbers: dict[str, int] = {}
    store = database.create("images", vectors.shape[1])
    # No approximate index before the end, so that the time of building the whole of it can be told.
    chosen_threshold, lance.EXACT_ROWS = lance.EXACT_ROWS, len(vectors)
    start = time.perf_counter()
    for first in range(0, len(vectors), 1024):
        batch = Batch(
            [made_item(row) for row in range(first, min(first + 1024, len(vectors)))],
            vectors[first : first + 1024],
        )
        numbers |= {item.id: row for row, item in enumerate(batch.items, first)}
        store.upsert(batch)
        if first // 1024 % 32 == 31:
            store.optimize()  # as a refresh does now and then
    written = time.perf_counter() - start
    start = time.perf_counter()
    store.optimize(force=True)
    built = time.perf_counter() - start
    lance.EXACT_ROWS = chosen_threshold
    stats = store.stats()
    disk = stats.bytes / 1e6

    def searching(**options: Any) -> Search:
        return lambda question: [numbers[hit.item.id] for hit in store.search(question, K, **options)]

    yield Built("Diptych, exact", written, None, disk, searching(exact=True))
    if stats.indexed:
        yield Built(f"Diptych, IVF_SQ, {lance.PROBES} probes", written, built, disk, searching())
        dated = parse("meta.year = 2007")
        yield Built("the same, 1 in 26 by a filter", None, None, None, searching(filter_=dated))
        for number in probes:
            with_probes = searching()

            def search(question: Floats, number: int = number, inner: Search = with_probes) -> list[int]:
                chosen, lance.PROBES = lance.PROBES, number
                try:
                    return inner(question)
                finally:
                    lance.PROBES = chosen

            yield Built(f"Diptych, IVF_SQ, {number} probes", None, None, None, search)
    database.close()


def made_item(row: int) -> Item:
    uri = f"/photos/{row // 1000:05}/{row:08}.jpg"
    year = 2000 + row % 26
    return Item(
        id=item_id(uri),
        uri=uri,
        source="/photos",
        size=2_000_000 + row,
        mtime_ns=row * 10**9,
        sha256=f"{row:064x}",
        caption=f"picture number {row}",
        metadata={"year": year},
        width=4000,
        height=3000,
        thumbnail=f"{item_id(uri)}-{row:032x}",
    )


def row_of_table(
    built: Built, count: int, questions: Questions, filtered: list[list[set[int]]] | None
) -> str:
    seconds, recalls = [], []
    for kind, (asked, best) in enumerate(
        ((questions.images, questions.best_images), (questions.texts, questions.best_texts))
    ):
        expected = best if filtered is None else filtered[kind]
        most = EXACT_QUESTIONS if "exact" in built.name else len(asked)
        # An engine reads a part of its index from the disk when it first looks into it: that is not timed.
        for question in asked[: WARM_UP if "exact" in built.name else None]:
            built.search(question)
        hits = 0
        for question, rows in zip(asked[:most], expected[:most], strict=True):
            start = time.perf_counter()
            found = built.search(question)
            seconds.append(time.perf_counter() - start)
            hits += len(rows & set(found))
        recalls.append(hits / sum(map(len, expected[:most])))
    p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[18]
    cells = [f"{count:,}", built.name, shown(built.write), shown(built.build), shown(built.disk)]
    cells += [f"{1000 * p50:.2f}", f"{1000 * p95:.2f}", *(f"{recall:.4f}" for recall in recalls)]
    return "| " + " | ".join(cells) + " |"


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def size_of(file: Path) -> float:
    return file.stat().st_size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--queries", type=int, default=200, help="of each kind")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--probes", type=int, nargs="*", default=[])
    parser.add_argument("--engines", nargs="+", default=["numpy", "diptych", "faiss", "usearch"])
    parser.add_argument("--folder", type=Path, help="where the indexes are written; a temporary folder")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.queries = [2000], 20  # too few to train more than one partition
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    lines = [
        "# Search over 10 thousand to a million vectors",
        "",
        "`benchmarks/vector_index.py` says what each column is.",
        "",
        describe_machine("lancedb", "faiss-cpu", "usearch", "numpy"),
        "",
        f"512 dimensions, {options.queries} images and {options.queries} texts as questions.",
        "",
        HEADER,
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for count in options.rows:
        for line in table(count, options):
            print(line, flush=True)
            lines.append(line)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines += ["", f"Most memory of the process, with the vectors themselves: {peak:.1f} GiB."]
    print(lines[-1])
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", "utf-8")


def table(count: int, options: argparse.Namespace) -> Iterator[str]:
    drawn = Drawn()
    vectors = drawn.images(count)
    images, texts = drawn.pairs(options.queries)
    questions = Questions(images, texts, best_rows(vectors, images), best_rows(vectors, texts))
    rows_2007 = np.arange(7, count, 26)
    of_2007 = [
        [{int(rows_2007[row]) for row in one} for one in best_rows(vectors[rows_2007], asked)]
        for asked in (images, texts)
    ]
    engines: dict[str, Callable[[Half, Path], Iterator[Built]]] = {
        "numpy": with_numpy,
        "diptych": lambda rows, folder: with_diptych(rows, folder, options.probes),
        "faiss": with_faiss,
        "usearch": with_usearch,
    }
    for name in options.engines:
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            for built in engines[name](vectors, folder):
                yield row_of_table(built, count, questions, of_2007 if "filter" in built.name else None)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
