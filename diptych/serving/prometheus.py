"""What a server counts and measures, for Prometheus."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from diptych.errors import DiptychError, MissingExtraError

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError:
    raise MissingExtraError("prometheus-client", "serve", "serving an index") from None

if TYPE_CHECKING:
    from diptych.search.stores.protocol import Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The measurements of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.request_seconds = Histogram(
            "diptych_request_seconds",
            "Time to answer a request, by its route.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batch_size = Histogram(
            "diptych_batch_size",
            "Texts or pictures in one pass through the model.",
            ("modality",),
            buckets=_SIZES,
            registry=self._registry,
        )
        self.encode_seconds = Histogram(
            "diptych_encode_seconds",
            "Time of one pass through the model.",
            ("modality",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.index_seconds = Histogram(
            "diptych_index_seconds",
            "Time of one operation of the index.",
            ("operation",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.queue_depth = Gauge(
            "diptych_queue_depth",
            "Work that waits or is being done.",
            ("queue",),
            registry=self._registry,
        )
        self.refused = Counter(
            "diptych_refused",
            "Requests answered 429, by the queue that was full.",
            ("queue",),
            registry=self._registry,
        )
        self.cached_texts = Counter(
            "diptych_text_cache",
            "Texts looked up in the cache of vectors.",
            ("result",),
            registry=self._registry,
        )

    @contextlib.contextmanager
    def index(self, operation: str) -> Iterator[None]:
        """Time the body as an operation of the index."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.index_seconds.labels(operation).observe(time.perf_counter() - start)

    def watch_index(self, stats: Callable[[], "Stats"]) -> None:
        """Report how the index lies in its place, asked whenever the page of metrics is."""
        self._registry.register(_IndexCollector(stats))

    def page(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)


class _IndexCollector(Collector):
    """Gauges of `Stats`; where the index cannot be read, only that it cannot."""

    def __init__(self, stats: Callable[[], "Stats"]) -> None:
        self._stats = stats

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # so that registering does not read the index

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            stats = self._stats()
        except DiptychError:
            yield GaugeMetricFamily("diptych_index_up", "Whether the index can be read.", 0)
            return
        yield GaugeMetricFamily("diptych_index_up", "Whether the index can be read.", 1)
        yield GaugeMetricFamily("diptych_index_rows", "Pictures in the index.", stats.rows)
        yield GaugeMetricFamily(
            "diptych_index_unindexed_rows",
            "Pictures that an approximate search compares one by one.",
            stats.unindexed,
        )
        yield GaugeMetricFamily(
            "diptych_index_fragments", "Pieces of the table that a search visits.", stats.fragments
        )
        yield GaugeMetricFamily(
            "diptych_index_versions", "States of the table that can be read.", stats.versions
        )
        yield GaugeMetricFamily("diptych_index_bytes", "Size of the table.", stats.bytes)
