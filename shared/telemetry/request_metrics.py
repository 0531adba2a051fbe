"""Request metrics (Prometheus): counts requests and measures their latency in seconds; a metric never fails a request.

Under gunicorn each process writes its metrics into files in ``PROMETHEUS_MULTIPROC_DIR``, and the process that gets
the scrape adds them up. prometheus_client reads that variable when it is imported, so ``api/gunicorn.py`` sets it in
the master, before any worker imports this module. Without the variable each process counts for itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
OTHER_METHOD: Final = "other"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_OLD_LABELS: Final = ("service", "endpoint")
BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_REQUESTS: Final = Counter("bucket_http_requests", "Requests answered.", ["route", "method", "status"])
_SECONDS: Final = Histogram(
    "bucket_http_request_seconds", "Seconds from request to reply, without a wait.", ["route"], buckets=BUCKETS_S
)
_STORE_SECONDS: Final = Histogram(
    "bucket_store_seconds", "Seconds that calls to MongoDB took, by the store's verb.", ["verb"], buckets=BUCKETS_S
)
_HELD_POLLS: Final = Gauge("bucket_held_polls", "Requests that are held now.", multiprocess_mode="livesum")
_REFUSALS: Final = Counter("bucket_limits_refused", "Requests refused by a rate limit or a quota.", ["limit"])
_FAILED_OPEN: Final = Counter("bucket_limits_failed_open", "Requests that no limit was applied to, without Redis.")


def observe_request(route: str, method: str, status: int, seconds: float) -> None:
    """Count a request with its duration; pass the route, not the path: ids would be endless labels."""
    try:
        requests, durations = _labelled(route, method if method in _METHODS else OTHER_METHOD, status)
        requests.inc()
        durations.observe(seconds)
    except Exception as error:  # noqa: BLE001  for example a full disk under the files of multiprocess mode
        structlog.get_logger(__name__).warning("metrics.lost", reason=str(error))


def observe_store_call(verb: str, seconds: float) -> None:
    """Count a call to MongoDB with its duration; ``verb`` is the name of the store's method."""
    try:
        _labelled_verb(verb).observe(seconds)
    except Exception as error:  # noqa: BLE001  as above
        structlog.get_logger(__name__).warning("metrics.lost", reason=str(error))


def count_held_polls(change: int) -> None:
    """Add ``change``, 1 or -1, to the number of requests that are held."""
    try:
        _HELD_POLLS.inc(change)
    except Exception as error:  # noqa: BLE001  as above
        structlog.get_logger(__name__).warning("metrics.lost", reason=str(error))


def count_refusal(limit: str) -> None:
    """Count a request that a rate limit (its class) or a quota (its name) refused."""
    _REFUSALS.labels(limit).inc()


def count_failed_open(requests: int) -> None:
    """Count requests that were let through because Redis, which has the limits, was away."""
    _FAILED_OPEN.inc(requests)


def render_exposition(*collectors: Collector) -> bytes:
    """Render the Prometheus text format: the request metrics of all processes, and the metrics of ``collectors``."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return _requests() + generate_latest(registry)


def _requests() -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_WithOldNames())
    return generate_latest(registry)


class _WithOldNames(Collector):
    """The metrics of all processes, and those of requests under the names of earlier releases too.

    They are made of the new ones at each scrape, so that a request is counted once. The next release removes them.
    """

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        for family in _families():
            yield family
            if family.name == "bucket_http_requests":
                yield _old_rate(family)
            elif family.name == "bucket_http_request_seconds":
                yield _old_latency(family)


def _families() -> Iterable[Metric]:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY.collect()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry.collect()


def _old_rate(requests: Metric) -> Metric:
    totals: dict[str, float] = {}
    for sample in requests.samples:
        if sample.name.endswith("_total"):
            route = sample.labels["route"]
            totals[route] = totals.get(route, 0) + sample.value
    family = CounterMetricFamily("request_rate", "Deprecated: bucket_http_requests.", labels=_OLD_LABELS)
    for route, total in totals.items():
        family.add_metric(["api", route], total)
    return family


def _old_latency(seconds: Metric) -> Metric:
    family = Metric("latency", "Deprecated: bucket_http_request_seconds.", "histogram")
    for sample in seconds.samples:
        if not sample.name.endswith("_created"):
            bound = {"le": sample.labels["le"]} if "le" in sample.labels else {}
            labels = {"service": "api", "endpoint": sample.labels["route"]} | bound
            family.add_sample(sample.name.replace(seconds.name, "latency"), labels, sample.value)
    return family


@lru_cache(maxsize=4096)
def _labelled(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    return _REQUESTS.labels(route, method, str(status)), _SECONDS.labels(route)


@lru_cache(maxsize=256)
def _labelled_verb(verb: str) -> Histogram:
    return _STORE_SECONDS.labels(verb)
