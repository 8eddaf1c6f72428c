"""Embed on a cluster, with a pool of Ray Data workers, each with the model and the source.

Every worker gets stretches of rows that are whole batches of the local path, and the results return in order: the same
batches, the same rows. If a worker dies, another repeats its stretch.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source
from diptych.embed.embedding_files import Part, part_of
from diptych.embed.source_rows import embed_source
from diptych.errors import DiptychError, MissingExtraError
from diptych.models.image_model import ImageModel

# The batches of a stretch: decoding runs ahead of the model inside one, and is repeated if its worker dies.
_BATCHES = 8
# The most stretches of a job, because Ray keeps a record of each.
_MOST_STRETCHES = 4096

Load: TypeAlias = Callable[[], tuple[ImageModel, Preprocess]]


@dataclass(frozen=True, slots=True)
class Share:
    """The number of workers, and the CPUs and GPUs of each."""

    workers: int
    cpus: float
    gpus: float


def embed_on_ray(
    load: Load,
    source: Source,
    *,
    positions: range | None = None,
    batch_size: int = 64,
    workers: int | None = None,
) -> Iterator[Part]:
    """Embed the images of a source, in the order of `positions` (default: every row).

    `load` is called once in every worker. `source` is sent to the workers, and its files must exist on their machines.
    The default of `workers` is one per GPU of the cluster, or without GPUs one for every two cores. Ray is started on
    this machine, and stopped at the end, unless it runs already or the environment names a cluster (RAY_ADDRESS).

    Raises:
        MissingExtraError: Ray is not installed.
        CheckpointError: the model gives values that are not finite.
    """
    ray = _ray()
    rows = range(len(source)) if positions is None else positions
    length = _stretch(len(rows), batch_size)
    stretches = [rows[start : start + length] for start in range(0, len(rows), length)]
    if not stretches:
        return
    with _start(ray):
        share = share_of(ray.cluster_resources(), workers)
        # Held in a variable, so that it lives on: a restarted worker requests it again.
        everywhere = ray.put(source)
        stretch = [{"start": part.start, "stop": part.stop} for part in stretches]
        jobs = ray.data.from_items(stretch, override_num_blocks=len(stretch))
        context = jobs.context
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        done = jobs.map_batches(
            _Worker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=share.workers),
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            fn_constructor_args=(load, everywhere, batch_size),
        )
        for row in done.iter_rows():
            if isinstance(row["parts"], DiptychError):
                raise row["parts"]
            yield from row["parts"]


def share_of(resources: dict[str, float], workers: int | None) -> Share:
    """Divide a cluster's `resources`, as Ray counts them, among the workers."""
    cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    count = workers or gpus or max(1, cpus // 2)
    # Several workers may share a GPU; a worker never gets several GPUs.
    return Share(count, max(1, cpus // count), min(1.0, gpus / count))


def _stretch(rows: int, batch_size: int) -> int:
    """Return the rows of a stretch: whole batches."""
    return batch_size * max(_BATCHES, -(-rows // (batch_size * _MOST_STRETCHES)))


class _Worker:
    """One process of the pool; Ray calls it with one stretch after another."""

    def __init__(self, load: Load, source: Any, batch_size: int) -> None:
        self._model, self._preprocess = load()
        self._source = _ray().get(source)
        self._batch_size = batch_size

    def __call__(self, stretch: dict[str, Any]) -> dict[str, Any]:
        """Embed a stretch, with one `start` and one `stop`; return one list of parts, or the error to raise."""
        positions = range(int(stretch["start"][0]), int(stretch["stop"][0]))
        embedded = partial(embed_source, positions=positions, batch_size=self._batch_size, hashes=True)
        answer = np.empty(1, object)
        try:
            answer[0] = [part_of(batch) for batch in embedded(self._model, self._preprocess, self._source)]
        except DiptychError as error:
            answer[0] = error
        return {"parts": answer}


@contextlib.contextmanager
def _start(ray: Any) -> Iterator[None]:
    """Connect to Ray: use the existing connection, or make one for this call."""
    if ray.is_initialized():
        yield
        return
    # This turns off telemetry. It is set before Ray starts, because its processes inherit it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    where = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray  # noqa: PLC0415 - optional
        import ray.data  # noqa: PLC0415 - optional
    except ImportError:
        raise MissingExtraError("ray", "ray", "embedding on a cluster") from None
    return ray
