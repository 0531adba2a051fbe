"""Metrics of the calls to providers: counters in a Redis hash, written with each call, read at each scrape."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

import orjson
import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.live.providers.call_policy import CallReport
from shared.live.providers.provider_states import PROVIDERS_MAX, ProviderState, decode_states, read_states

METRICS_KEY: Final = (
    "metrics:providers"  # field ["provider", "errors" | "calls" | "seconds" | "retries", kind or bucket]
)
BUCKETS_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
NOT_LISTED: Final = "not listed"
"""The provider of calls to hosts that may not be called: their names would be endless labels."""
_STATES: Final = {"closed": 0, "half-open": 1, "open": 2}


def call_increments(report: CallReport, seconds: float, kind: str) -> Iterator[tuple[bytes, str]]:
    """Yield the fields of a call and what is added to them."""
    if report.outcome != "abandoned":
        yield _field(report.provider, "calls", bisect_left(BUCKETS_S, seconds)), "1"
        yield _field(report.provider, "seconds", ""), f"{max(seconds, 0.0):.6f}"
    if report.is_repeat:
        yield _field(report.provider, "retries", ""), "1"
    if kind:
        yield error_field(report.provider, kind), "1"


def error_field(provider: str, kind: str) -> bytes:
    """Return the field that counts the errors of a kind."""
    return _field(provider, "errors", kind)


def count_error(client: redis.Redis, provider: str, kind: str) -> None:
    """Count an error that no record of a call has; raises RedisError."""
    client.hincrbyfloat(METRICS_KEY, error_field(provider, kind), 1)


class ProviderCollector(Collector):
    """Prometheus collector that yields the metrics of calls to providers; nothing if Redis is away."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def describe(self) -> list[Metric]:
        """Return no names, so that a registry need not read Redis when it registers this collector."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families as they are in Redis now; errors and strange values in Redis never raise."""
        pipe: Any = self._client.pipeline(transaction=False)
        pipe.hgetall(METRICS_KEY)
        read_states(pipe)
        try:
            counters, states, time = pipe.execute(raise_on_error=False)
        except (redis.RedisError, OSError):
            return  # bucket_redis_up says so
        yield from _families(counters if isinstance(counters, dict) else {}, decode_states(states, time))


def _families(stored: dict[bytes, bytes], states: tuple[ProviderState, ...]) -> Iterator[Metric]:
    calls: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    retries = CounterMetricFamily("bucket_provider_retries", "Calls that were repeated.", labels=["provider"])
    errors = CounterMetricFamily(
        "bucket_provider_errors", "Calls that failed or were refused.", labels=["provider", "kind"]
    )
    for provider, part, label, value in sorted(_decode(stored), key=lambda row: (row[0], row[1], str(row[2]))):
        if provider not in calls and len(calls) >= PROVIDERS_MAX:
            continue
        buckets = calls.setdefault(provider, [0.0] * (len(BUCKETS_S) + 1))
        if part == "calls" and isinstance(label, int) and 0 <= label < len(buckets):
            buckets[label] += value
        elif part == "seconds":
            seconds[provider] = value
        elif part == "retries":
            retries.add_metric([provider], value)
        elif part == "errors":
            errors.add_metric([provider, str(label)], value)
    family = HistogramMetricFamily("bucket_provider_seconds", "Seconds that calls took.", labels=["provider"])
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    for provider, buckets in calls.items():
        if any(buckets):
            counts = list(zip(bounds, accumulate(buckets), strict=True))
            family.add_metric([provider], counts, seconds.get(provider, 0.0))
    circuits = GaugeMetricFamily(
        "bucket_provider_circuit", "The circuit: 0 closed, 1 half-open, 2 open.", labels=["provider"]
    )
    for state in states:
        circuits.add_metric([state.name], _STATES[state.state])
    yield from (family, errors, retries, circuits)


def _decode(stored: dict[bytes, bytes]) -> Iterator[tuple[str, str, Any, float]]:
    for field, value in stored.items():
        try:
            provider, part, label = orjson.loads(field)
            yield str(provider), str(part), label, float(value)
        except (ValueError, TypeError):
            continue


def _field(*parts: str | int) -> bytes:
    return orjson.dumps(parts)
