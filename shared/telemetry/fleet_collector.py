"""Reads the fleet's figures out of Redis when Prometheus asks, in one pipeline; caches nothing, never fails a scrape.

With Redis away ``bucket_redis_up`` is 0 and the other families are absent: no figure is better than an old one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, Final

import orjson
import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.telemetry.fleet_metrics import (
    EXECUTIONS_KEY,
    LABELS_MAX,
    OTHER_LABEL,
    RESCUES_KEY,
    STEP_BUCKETS_S,
    STEPS_KEY,
)

# kombu keeps a queue's second priority in a list of its own (ENGINE section 5).
QUEUE_LIST_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "default": ("default", "default\x06\x163"),
    "long": ("long", "long\x06\x163"),
}


class FleetCollector(Collector):
    """What a Prometheus registry asks for the fleet's figures."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def describe(self) -> list[Metric]:
        """Answer nothing: a registry must not have to ask Redis for names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the families as Redis has them at this moment; never raise for what Redis does or holds."""
        answers = self._read()
        yield GaugeMetricFamily("bucket_redis_up", "Whether Redis answered this scrape.", 0 if answers is None else 1)
        if answers is not None:
            executions, steps, rescues, *lengths = answers
            yield from _executions(_hash(executions))
            yield from _steps(_hash(steps))
            yield _rescues(rescues)
            yield _depths(lengths)

    def _read(self) -> list[Any] | None:
        pipe: Any = self._client.pipeline(transaction=False)
        for key in (EXECUTIONS_KEY, STEPS_KEY, RESCUES_KEY):
            pipe.hgetall(key)
        for lists in QUEUE_LIST_KEYS.values():
            for name in lists:
                pipe.llen(name)
        try:
            answers: list[Any] = pipe.execute(raise_on_error=False)
        except (redis.RedisError, OSError):
            return None
        # A Redis that is still loading refuses each command by itself.
        return None if all(isinstance(answer, Exception) for answer in answers) else answers


def _hash(answer: Any) -> Iterator[tuple[str, Any, float]]:
    """Yield (name, second part, figure) of a hash; skip what somebody else may have put there."""
    for field, figure in answer.items() if isinstance(answer, dict) else ():
        try:
            name, part = orjson.loads(field)
            yield str(name), part, float(figure)
        except (ValueError, TypeError):
            continue


def _executions(rows: Iterator[tuple[str, Any, float]]) -> Iterator[Metric]:
    counted: dict[tuple[str, str], float] = {}
    known: set[str] = set()
    for basket, status, figure in rows:
        if len(known) < LABELS_MAX:
            known.add(basket)
        label = (basket if basket in known else OTHER_LABEL, str(status))
        counted[label] = counted.get(label, 0) + figure
    family = CounterMetricFamily("bucket_executions", "Executions that ended.", labels=["basket", "status"])
    for label, figure in sorted(counted.items()):
        family.add_metric(label, figure)
    yield family


def _steps(rows: Iterator[tuple[str, Any, float]]) -> Iterator[Metric]:
    sums: dict[str, float] = {}
    counts: dict[str, list[float]] = {}
    for agent, part, figure in rows:
        bucket = counts.setdefault(agent, [0.0] * (len(STEP_BUCKETS_S) + 1))
        if part == "sum":
            sums[agent] = figure
        elif isinstance(part, int) and 0 <= part < len(bucket):
            bucket[part] += figure
    family = HistogramMetricFamily("bucket_step_seconds", "Seconds that attempts took.", labels=["agent"])
    bounds = [*map(str, STEP_BUCKETS_S), "+Inf"]
    for agent in sorted(counts)[:LABELS_MAX]:
        family.add_metric([agent], list(zip(bounds, accumulate(counts[agent]), strict=True)), sums.get(agent, 0.0))
    yield family


def _rescues(answer: Any) -> Metric:
    family = CounterMetricFamily("bucket_rescues", "Steps offered again.", labels=["reason"])
    named = {_text(name): figure for name, figure in answer.items()} if isinstance(answer, dict) else {}
    for name, figure in sorted(named.items())[:LABELS_MAX]:
        try:
            family.add_metric([name], float(figure))
        except ValueError:
            continue
    return family


def _depths(lengths: list[Any]) -> Metric:
    family = GaugeMetricFamily("bucket_queue_depth", "Messages that wait for a worker.", labels=["queue"])
    waiting = iter(lengths)
    for queue, lists in QUEUE_LIST_KEYS.items():
        figures = [next(waiting) for _ in lists]
        if all(isinstance(figure, int) for figure in figures):
            family.add_metric([queue], sum(figures))
    return family


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
