"""Build the approximate index of a LanceDB table, with partitions that are found here, in single precision.

LanceDB can find the partitions itself, but compares half-precision vectors one by one. For a million vectors that takes
seven times as long as matrix products, and its k-means gives partitions that need more probes (`vector_index.md`).
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diptych.errors import MissingExtraError
from diptych.search.stores.clustering import CHUNK, Floats, nearest_centres, spherical_kmeans

try:
    import lance
except ImportError:
    raise MissingExtraError("pylance", "search", "an approximate index in a folder or a bucket") from None

# The vectors per partition that k-means uses, and the most for all partitions together.
SAMPLE = 64
MOST = 1 << 19


def build_parts(table: Any, column: str, name: str, count: int) -> None:
    """Build an index `name` of 8 bits per dimension, in `count` partitions; it is a new version of the dataset.

    table: a `lance.LanceDataset`.
    """
    rows = table.count_rows()
    places = np.linspace(0, rows - 1, min(rows, count * SAMPLE, MOST)).astype(np.int64)
    sample = _floats(table.take(places.tolist(), columns=[column]).column(column).combine_chunks())
    centres = spherical_kmeans(sample / np.linalg.norm(sample, axis=1, keepdims=True), count)
    schema = pa.schema([("row_id", pa.uint64()), ("partition", pa.uint32())])
    with tempfile.TemporaryDirectory() as folder:
        parts = str(Path(folder) / "parts.lance")
        reader = pa.RecordBatchReader.from_batches(schema, _parts(table, column, centres, schema))
        lance.write_dataset(reader, parts)
        table.create_index(
            column,
            "IVF_SQ",
            name=name,
            metric="cosine",
            num_partitions=count,
            ivf_centroids=centres,
            precomputed_partition_dataset=parts,
        )


def _parts(table: Any, column: str, centres: Floats, schema: Any) -> Iterator[Any]:
    for batch in table.to_batches(columns=[column], with_row_id=True, batch_size=CHUNK):
        nearest, _ = nearest_centres(_floats(batch.column(column)), centres)
        arrays = [batch.column("_rowid"), pa.array(nearest.astype(np.uint32))]
        yield pa.record_batch(arrays, schema=schema)


def _floats(column: Any) -> Floats:
    """Convert a column of half-precision lists to a matrix."""
    flat: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1).astype(np.float32)
