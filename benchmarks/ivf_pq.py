"""Search among up to 20 million vectors with the geometry of OpenAI's ViT-B/32, by product quantisation in partitions.

    python benchmarks/ivf_pq.py [--rows 200000] [--parts N] [--bytes 64 128] [--probes 32 64 128]
        [--shortlist 10 100 1000] [--queries 500] [--threads 2] [--folder DIR] [--out FILE]

The vectors come from `clip_geometry.py` in parts. Each part is rounded to half precision and compared with all queries
(for the true ten best), assigned to a partition, encoded, written to a file, and forgotten. The partitions are those of
Diptych's own k-means (`diptych/search/stores/clustering.py`), trained on the first rows; the codes are faiss's. Half of
the queries are images that are not in the collection; half are texts of such images.

A row of the table says how many partitions a search visits, how many of the codes' best are compared again with the
vectors in the file (none: the codes decide), the median and the 95th percentile of one query's time, and recall@10.
Memory a vector is its code and an 8-byte number; the file has 1,024 bytes a vector. --parts is one for 2,048 rows by
default. 20 million rows take 21 GB of disk under --folder. --quick shows that it runs.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from clip_geometry import Drawn, Floats
from exact_best import ExactBest
from timing import describe_machine

from diptych.search.stores.clustering import nearest_centres, spherical_kmeans

K = 10
ROWS_A_PART = 2048
SAMPLE = 40  # rows a partition that k-means and the codes are trained on
ID_BYTES = 8
HEADER = "| vectors | bytes a vector | probes | compared again | p50 ms | p95 ms | recall@10 images | texts |"


@dataclass
class Seconds:
    """What the build took, by step."""

    drawing: float = 0
    training: float = 0
    assigning: float = 0
    encoding: dict[int, float] = field(default_factory=dict)
    comparing: float = 0
    writing: float = 0


class HalfRows:
    """Vectors of a file in half precision, read row by row: the system caches them, and this process does not."""

    def __init__(self, path: Path, dim: int) -> None:
        self._file, self._dim = os.open(path, os.O_RDONLY), dim

    def read(self, rows: Sequence[int]) -> Floats:
        """Return these rows (rows, dim), scaled to unit length."""
        size = 2 * self._dim
        data = b"".join(os.pread(self._file, size, row * size) for row in rows)
        vectors = np.frombuffer(data, np.float16).reshape(-1, self._dim).astype(np.float32)
        unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def close(self) -> None:
        os.close(self._file)


def trained(sample: Floats, parts: int, sizes: Sequence[int]) -> tuple[Floats, dict[int, Any]]:
    """Return the centres of the partitions, and an empty index for each number of bytes a code."""
    centres, dim = spherical_kmeans(sample, parts), sample.shape[1]
    quantiser = faiss.IndexFlatIP(dim)
    quantiser.add(centres)
    indexes = {
        size: faiss.IndexIVFPQ(quantiser, dim, parts, size, 8, faiss.METRIC_INNER_PRODUCT) for size in sizes
    }
    for index in indexes.values():
        index.train(sample)
    return centres, indexes


def build(
    options: argparse.Namespace, drawn: Drawn, best: Sequence[ExactBest], path: Path
) -> tuple[dict[int, Any], Seconds]:
    """Build an index for each number of bytes, find the best rows, and write every vector to `path`."""
    spent = Seconds(encoding=dict.fromkeys(options.bytes, 0.0))
    sample = drawn.images(min(options.rows, max(options.parts * SAMPLE, 256 * SAMPLE))).astype(np.float32)
    start = time.perf_counter()
    centres, indexes = trained(sample, options.parts, options.bytes)
    spent.training = time.perf_counter() - start
    del sample
    first, clock = 0, time.perf_counter()
    with path.open("wb") as file:
        for part in drawn.chunks(options.rows):
            clock, spent.drawing = _lap(clock, spent.drawing)
            half = part.astype(np.float16)
            for one in best:
                one.add(half)
            clock, spent.comparing = _lap(clock, spent.comparing)
            file.write(half.tobytes())
            clock, spent.writing = _lap(clock, spent.writing)
            nearest, _ = nearest_centres(part, centres)
            clock, spent.assigning = _lap(clock, spent.assigning)
            numbers = np.arange(first, first + len(part))
            for size, index in indexes.items():
                index.add_core(
                    len(part), faiss.swig_ptr(part), faiss.swig_ptr(numbers), faiss.swig_ptr(nearest)
                )
                clock, spent.encoding[size] = _lap(clock, spent.encoding[size])
            first += len(part)
    return indexes, spent


def _lap(clock: float, spent: float) -> tuple[float, float]:
    now = time.perf_counter()
    return now, spent + now - clock


def search(index: Any, rows: HalfRows, query: Floats, shortlist: int) -> list[int]:
    """Return the 10 best rows, best first: of the codes' `shortlist` best, by the vectors in the file."""
    found = [int(row) for row in index.search(query[None], shortlist)[1][0] if row >= 0]
    if shortlist <= K:
        return found
    scores = rows.read(found) @ query
    return [found[place] for place in np.argsort(-scores)[:K]]


def measured(
    options: argparse.Namespace,
    indexes: dict[int, Any],
    rows: HalfRows,
    asked: Sequence[tuple[Floats, ExactBest]],
) -> Iterator[str]:
    """Yield the lines of the table."""
    for size, index in indexes.items():
        for probes in options.probes:
            index.nprobe = probes
            for shortlist in options.shortlist:
                seconds, recalls = [], []
                for queries, exact in asked:
                    hits, best = 0, exact.rows()
                    for query, wanted in zip(queries, best, strict=True):
                        start = time.perf_counter()
                        found = search(index, rows, query, shortlist)
                        seconds.append(time.perf_counter() - start)
                        hits += len(wanted & set(found))
                    recalls.append(hits / sum(map(len, best)))
                p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[18]
                again = f"{shortlist:,}" if shortlist > K else "none"
                yield (
                    f"| {options.rows:,} | {size + ID_BYTES} | {probes} | {again} | {1000 * p50:.2f} "
                    f"| {1000 * p95:.2f} | {recalls[0]:.4f} | {recalls[1]:.4f} |"
                )


def told(options: argparse.Namespace, spent: Seconds, asked: Sequence[tuple[Floats, ExactBest]]) -> list[str]:
    """Return what the build took, and how near the true best are."""
    codes = ", ".join(f"codes of {size} bytes {one:.0f} s" for size, one in spent.encoding.items())
    near = [exact.cosines() for _, exact in asked]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [
        "",
        f"{options.parts:,} partitions: training {spent.training:.0f} s, assigning {spent.assigning:.0f} s, {codes}.",
        f"Besides: drawing {spent.drawing:.0f} s, the true best {spent.comparing:.0f} s, "
        f"the file {spent.writing:.0f} s.",
        "Mean cosine with the nearest and the tenth: "
        f"images {near[0][:, 0].mean():.3f} and {near[0][:, -1].mean():.3f}, "
        f"texts {near[1][:, 0].mean():.3f} and {near[1][:, -1].mean():.3f}.",
        f"Most memory of the process: {peak:.1f} GiB.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--parts", type=int)
    parser.add_argument("--bytes", type=int, nargs="+", default=[64, 128], help="of a vector's code")
    parser.add_argument("--probes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--shortlist", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--queries", type=int, default=500, help="of each kind")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the vectors are written; a temporary folder")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.queries, options.bytes = 10_000, 20, [32]
        options.probes, options.shortlist = [2], [10, 100]
    options.parts = options.parts or max(1, options.rows // ROWS_A_PART)
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    lines = [describe_machine("faiss-cpu", "numpy"), "", HEADER, "|---|---|---|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    drawn = Drawn()
    asked = [(queries, ExactBest(queries, K)) for queries in drawn.pairs(options.queries)]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "vectors.f16"
        indexes, spent = build(options, drawn, [exact for _, exact in asked], path)
        rows = HalfRows(path, drawn.geometry.dim)
        for line in measured(options, indexes, rows, asked):
            print(line, flush=True)
            lines.append(line)
        rows.close()
    lines += (more := told(options, spent, asked))
    print("\n".join(more))
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
