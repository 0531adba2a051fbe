"""Counters and latencies of the connectors in this process, as a snapshot or as Prometheus text."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Final

DURATION_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PREFIX: Final = "bucket_connector"
_STATUS_CLASSES: Final = ("2xx", "3xx", "4xx", "5xx", "no_reply")
_COUNTERS: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    # name: help, label, the values that are shown from the start
    "calls": ("Calls to Core.", "status", _STATUS_CLASSES),
    "sends": ("Payloads that were sent to Core, or given up.", "outcome", ("sent", "failed")),
    "resends": ("Payloads of the failure log that were sent again.", "outcome", ("sent", "failed")),
    "saves": ("Files in the bucket folder.", "outcome", ("saved", "failed")),
    "retries": ("Calls to Core that repeat an earlier one.", "", ("",)),
    "log_errors": ("Payloads that could not be written to the failure log.", "", ("",)),
}


@dataclass(frozen=True, slots=True)
class DurationHistogram:
    """Durations of calls to Core: ``buckets`` maps an upper bound in seconds to the number of calls up to it."""

    buckets: Mapping[float, int]
    count: int
    sum_s: float


@dataclass(frozen=True, slots=True)
class ConnectorMetrics:
    """A snapshot of the counters since the process began; ``sends["failed"]``, for example, is a number of payloads."""

    calls: Mapping[str, int]
    sends: Mapping[str, int]
    resends: Mapping[str, int]
    saves: Mapping[str, int]
    retries: int
    log_errors: int
    call_duration: DurationHistogram


class MetricsRegistry:
    """Counts what the connectors do; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._calls_by_bucket = [0] * (len(DURATION_BOUNDS_S) + 1)
        self._sum_s = 0.0

    def count(self, counter: str, value: str = "") -> None:
        """Add one to a counter; ``value`` is that of its label."""
        with self._lock:
            self._counts[counter, value] += 1

    def observe_call(self, status: int | None, duration_s: float) -> None:
        """Count one call to Core and its duration; ``status`` is None if there was no reply."""
        with self._lock:
            self._counts["calls", "no_reply" if status is None else f"{status // 100}xx"] += 1
            self._calls_by_bucket[bisect_left(DURATION_BOUNDS_S, duration_s)] += 1
            self._sum_s += duration_s

    def snapshot(self) -> ConnectorMetrics:
        """Return all counters as they are at one moment."""
        with self._lock:
            counts, calls_by_bucket, sum_s = self._counts.copy(), list(self._calls_by_bucket), self._sum_s
        labelled = {
            name: MappingProxyType({value: counts[name, value] for value in values})
            for name, (_, label, values) in _COUNTERS.items()
            if label
        }
        buckets = dict(zip(DURATION_BOUNDS_S, accumulate(calls_by_bucket), strict=False))
        return ConnectorMetrics(
            **labelled,
            retries=counts["retries", ""],
            log_errors=counts["log_errors", ""],
            call_duration=DurationHistogram(MappingProxyType(buckets), sum(calls_by_bucket), sum_s),
        )


REGISTRY: Final = MetricsRegistry()


def connector_metrics() -> ConnectorMetrics:
    """Return a snapshot of what the connectors of this process have done."""
    return REGISTRY.snapshot()


def connector_metrics_text() -> str:
    """Return the metrics in the text format of Prometheus, version 0.0.4."""
    return "\n".join(_lines_of(REGISTRY.snapshot())) + "\n"


def _lines_of(metrics: ConnectorMetrics) -> Iterator[str]:
    for name, (description, label, values) in _COUNTERS.items():
        full_name = f"{_PREFIX}_{name}_total"
        yield from (f"# HELP {full_name} {description}", f"# TYPE {full_name} counter")
        if label:
            yield from (f'{full_name}{{{label}="{value}"}} {getattr(metrics, name)[value]}' for value in values)
        else:
            yield f"{full_name} {getattr(metrics, name)}"
    name, duration = f"{_PREFIX}_call_duration_seconds", metrics.call_duration
    yield from (f"# HELP {name} Duration of one call to Core.", f"# TYPE {name} histogram")
    yield from (f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in duration.buckets.items())
    yield from (
        f'{name}_bucket{{le="+Inf"}} {duration.count}',
        f"{name}_sum {duration.sum_s}",
        f"{name}_count {duration.count}",
    )
