"""Prometheus collector of the fleet metrics: reads them from Redis at each scrape; never fails a scrape.

It uses one pipeline and caches nothing. If Redis is away, ``bucket_redis_up`` is 0 and the other families are absent:
no value is better than an old one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, Final

import orjson
import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.queue.message import list_keys
from shared.telemetry.fleet_counters import (
    EXECUTIONS_KEY,
    FAILURES_KEY,
    LABELS_MAX,
    OTHER_LABEL,
    RESCUES_KEY,
    RETRIES_KEY,
    STEP_BUCKETS_S,
    STEPS_KEY,
)

_RESCUE_REASONS: Final = ("deadline", "lease_over", "moment_come", "not_claimed")
_DEPTH_HELP: Final = "Steps that are offered and wait for a slot."


class FleetCollector(Collector):
    """Prometheus collector that yields the metrics of all processes, as they are in Redis.

    Unless ``names_baskets``, all baskets count as "other": their names, which integrators choose, are not for everyone.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        names_baskets: bool = True,
        depths: Mapping[str, int] | None = None,
        is_writable: bool = True,
    ) -> None:
        """``depths`` are the numbers of steps that wait in each queue; without them its messages are counted.

        A Redis that is not ``is_writable`` counts as away, though it replies.
        """
        self._is_writable = is_writable
        self._client = client
        self._queue_depths = depths
        self._names_baskets = names_baskets

    def describe(self) -> list[Metric]:
        """Return no names, so that a registry need not read Redis when it registers this collector."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families as they are in Redis now; errors and strange values in Redis never raise."""
        replies = self._read()
        is_up = self._is_writable and replies is not None
        yield GaugeMetricFamily("bucket_redis_up", "Whether Redis replies and takes writes.", float(is_up))
        if replies is not None:
            executions, steps, rescues, failures, retries, *lengths = replies
            yield from _executions(_hash(executions), LABELS_MAX if self._names_baskets else 0)
            yield from _steps(_hash(steps))
            yield _rescues(rescues)
            yield _failures(_hash(failures))
            yield _retries(retries)
            yield _depths(lengths) if self._queue_depths is None else _depths_of(self._queue_depths)

    def _read(self) -> list[Any] | None:
        pipe: Any = self._client.pipeline(transaction=False)
        for key in (EXECUTIONS_KEY, STEPS_KEY, RESCUES_KEY, FAILURES_KEY):
            pipe.hgetall(key)
        pipe.get(RETRIES_KEY)
        for queue in QUEUE_NAMES:
            for name in list_keys(queue):
                pipe.llen(name)
        try:
            replies: list[Any] = pipe.execute(raise_on_error=False)
        except (redis.RedisError, OSError):
            return None
        # A Redis that is still loading refuses each command by itself.
        return None if all(isinstance(reply, Exception) for reply in replies) else replies


def _hash(reply: Any) -> Iterator[tuple[str, Any, float]]:
    """Yield (name, label, value) of each field of a hash; skip fields that Bucket did not write."""
    for field, value in reply.items() if isinstance(reply, dict) else ():
        try:
            name, label = orjson.loads(field)
            yield str(name), label, float(value)
        except (ValueError, TypeError):
            continue


def _executions(rows: Iterator[tuple[str, Any, float]], names_max: int) -> Iterator[Metric]:
    totals: dict[tuple[str, str], float] = {}
    baskets: set[str] = set()
    for basket, status, count in rows:
        if len(baskets) < names_max:
            baskets.add(basket)
        label = (basket if basket in baskets else OTHER_LABEL, str(status))
        totals[label] = totals.get(label, 0) + count
    family = CounterMetricFamily("bucket_executions", "Executions that ended.", labels=["basket", "status"])
    for label, count in sorted(totals.items()):
        family.add_metric(label, count)
    yield family


def _steps(rows: Iterator[tuple[str, Any, float]]) -> Iterator[Metric]:
    sums: dict[str, float] = {}
    counts: dict[str, list[float]] = {}
    for agent, part, value in rows:
        bucket = counts.setdefault(agent, [0.0] * (len(STEP_BUCKETS_S) + 1))
        if part == "sum":
            sums[agent] = value
        elif isinstance(part, int) and 0 <= part < len(bucket):
            bucket[part] += value
    family = HistogramMetricFamily("bucket_step_seconds", "Seconds that attempts took.", labels=["agent"])
    bounds = [*map(str, STEP_BUCKETS_S), "+Inf"]
    for agent in sorted(counts)[:LABELS_MAX]:
        family.add_metric([agent], list(zip(bounds, accumulate(counts[agent]), strict=True)), sums.get(agent, 0.0))
    yield family


def _rescues(reply: Any) -> Metric:
    family = CounterMetricFamily("bucket_rescues", "What the reconciler did to overdue steps.", labels=["reason"])
    by_reason: dict[str, Any] = dict.fromkeys(_RESCUE_REASONS, 0)  # an increase is seen only of what was there before
    by_reason |= {_text(name): count for name, count in reply.items()} if isinstance(reply, dict) else {}
    for name, count in sorted(by_reason.items())[:LABELS_MAX]:
        try:
            family.add_metric([name], float(count))
        except ValueError:
            continue
    return family


def _failures(rows: Iterator[tuple[str, Any, float]]) -> Metric:
    labels = ["agent", "error_code"]
    family = CounterMetricFamily("bucket_step_failures", "Attempts that failed, also if tried again.", labels=labels)
    for agent, code, count in sorted(rows, key=lambda row: (row[0], str(row[1])))[: 2 * LABELS_MAX]:
        family.add_metric([agent, str(code)], count)
    return family


def _retries(reply: Any) -> Metric:
    family = CounterMetricFamily("bucket_retries", "Attempts that failed and are tried again.")
    family.add_metric([], float(reply) if isinstance(reply, bytes) and reply.isdigit() else 0.0)
    return family


def _depths_of(depths: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily("bucket_queue_depth", _DEPTH_HELP, labels=["queue"])
    for queue, depth in depths.items():
        family.add_metric([queue], depth)
    return family


def _depths(lengths: list[Any]) -> Metric:
    family = GaugeMetricFamily("bucket_queue_depth", _DEPTH_HELP, labels=["queue"])
    list_lengths = iter(lengths)
    for queue in QUEUE_NAMES:
        depths = [next(list_lengths) for _ in list_keys(queue)]
        if all(isinstance(depth, int) for depth in depths):
            family.add_metric([queue], sum(depths))
    return family


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
