"""The metrics of a server, for Prometheus."""

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
    """Hold the metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.request_seconds = Histogram(
            "diptych_request_seconds",
            "Seconds to answer a request, by route.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batch_size = Histogram(
            "diptych_batch_size",
            "Texts or images in one pass through the model.",
            ("modality",),
            buckets=_SIZES,
            registry=self._registry,
        )
        self.encode_seconds = Histogram(
            "diptych_encode_seconds",
            "Seconds of one pass through the model.",
            ("modality",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.index_seconds = Histogram(
            "diptych_index_seconds",
            "Seconds of one operation of the index.",
            ("operation",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.queue_depth = Gauge(
            "diptych_queue_depth",
            "Items that wait or are being computed, by queue.",
            ("queue",),
            registry=self._registry,
        )
        self.refused = Counter(
            "diptych_refused",
            "Requests refused with status 429, by the queue that was full.",
            ("queue",),
            registry=self._registry,
        )
        self.cached_texts = Counter(
            "diptych_text_cache",
            "Texts looked up in the cache of vectors, by result.",
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
        """Report the size and state of the index. `stats` is called on each request for the metrics."""
        self._registry.register(_IndexCollector(stats))

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _IndexCollector(Collector):
    """Collect gauges from `Stats`. If the index cannot be read, only `diptych_index_up` is reported, as 0."""

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
        yield GaugeMetricFamily("diptych_index_rows", "Images in the index.", stats.rows)
        yield GaugeMetricFamily(
            "diptych_index_unindexed_rows",
            "Images outside the approximate index, which a search compares one by one.",
            stats.unindexed,
        )
        yield GaugeMetricFamily(
            "diptych_index_fragments", "Fragments of the table that a search reads.", stats.fragments
        )
        yield GaugeMetricFamily(
            "diptych_index_versions", "Versions of the table that can be read.", stats.versions
        )
        yield GaugeMetricFamily("diptych_index_bytes", "Bytes of the table.", stats.bytes)
