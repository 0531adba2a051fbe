"""Request metrics (Prometheus): counts requests and measures their latency in seconds; a metric never fails a request.

Under gunicorn each process writes its metrics into files in ``PROMETHEUS_MULTIPROC_DIR``, and the process that gets
the scrape adds them up. prometheus_client reads that variable when it is imported, so ``api/gunicorn.py`` sets it in
the master, before any worker imports this module. Without the variable each process counts for itself.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_RATE: Final = Counter("request_rate", "Requests answered.", ["service", "endpoint"])
_LATENCY: Final = Histogram("latency", "Seconds from request to reply.", ["service", "endpoint"], buckets=BUCKETS_S)

_REFUSALS: Final = Counter("bucket_limits_refused", "Requests refused by a rate limit or a quota.", ["limit"])
_FAILED_OPEN: Final = Counter("bucket_limits_failed_open", "Requests that no limit was applied to, without Redis.")


def observe_request(endpoint: str, seconds: float) -> None:
    """Count a request to ``endpoint`` with its duration; pass the route, not the path: ids would be endless labels."""
    try:
        rate, latency = _labelled(endpoint)
        rate.inc()
        latency.observe(seconds)
    except Exception as error:  # noqa: BLE001  for example a full disk under the files of multiprocess mode
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
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


@lru_cache(maxsize=1024)
def _labelled(endpoint: str) -> tuple[Counter, Histogram]:
    return _RATE.labels("api", endpoint), _LATENCY.labels("api", endpoint)
