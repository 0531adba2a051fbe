"""Metrics of the present state of the fleet: queues, workers, reconciler, feed, consumers and dead letters.

They are read at each scrape. A family whose source is away is absent: no value is better than an old one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final

import redis
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.fleet.fleet_stats import FleetStats, QueueFigures
from api.fleet.health_parts import HealthParts
from shared.bootstrap import Services
from shared.errors import BucketError
from shared.live.presence.worker_presence import read_fleet

CONSUMERS_MAX: Final = 200
DEAD_LETTERS_EVERY_S: Final = 10.0
_OTHER: Final = "other"
_QUEUE_FAMILIES: Final[Mapping[str, tuple[str, Callable[[QueueFigures], float]]]] = {
    "bucket_queue_oldest_seconds": (
        "For how long the oldest step has waited for a slot.", lambda figures: figures.oldest_age_s or 0.0
    ),
    "bucket_running_steps": ("Steps that run.", lambda figures: figures.running),
    "bucket_workers": ("Workers that take messages of the queue.", lambda figures: figures.workers),
    "bucket_slots": ("How many steps these workers can run at once.", lambda figures: figures.slots),
}  # fmt: skip


class FleetState(Collector):
    """The families of one scrape, already read; ``depths`` are the steps that wait, None if they are not known."""

    def __init__(self, families: list[Metric], depths: Mapping[str, int] | None) -> None:
        self._families = families
        self.depths = depths

    def describe(self) -> list[Metric]:
        """Return no names, as a registry need not know them."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        yield from self._families


class FleetStateMetrics:
    """Reads the state for one process; never fails a scrape."""

    def __init__(self, services: Services, stats: FleetStats, parts: HealthParts) -> None:
        self._services = services
        self._stats = stats
        self._parts = parts
        self._lock = threading.Lock()
        self._dead_letters = (-math.inf, 0)

    def read(self, *, names_consumers: bool) -> FleetState:
        """Return the state; the names of consumers, which integrators choose, only if ``names_consumers``."""
        families: list[Metric] = []
        depths: Mapping[str, int] | None = None
        with suppress(BucketError):  # bucket_redis_up or bucket_mongodb_up says so
            backlog_by_queue = self._stats.queues(None)
            depths = {queue: figures.queued for queue, figures in backlog_by_queue.items()}
            families += _queue_families(backlog_by_queue)
        with suppress(redis.RedisError):  # as above
            families.append(self._slots_busy())
        is_up = True
        try:
            families += self._of_mongodb(names_consumers=names_consumers)
        except BucketError:
            is_up = False
        families.append(_gauge("bucket_mongodb_up", "Whether MongoDB answered this scrape.", float(is_up)))
        return FleetState(families, depths)

    def _slots_busy(self) -> Metric:
        busy = sum(len(worker.info.running) for worker in read_fleet(self._services.redis).workers if worker.info)
        return _gauge("bucket_slots_busy", "Slots of workers that run a step.", busy)

    def _of_mongodb(self, *, names_consumers: bool) -> Iterator[Metric]:
        leads, lag_s = self._parts.leads(), self._parts.feed_lag_s()
        yield _gauge("bucket_reconciler_up", "Whether a reconciler leads.", float(leads))
        yield _gauge("bucket_relay_lag_seconds", "For how long changes are not in the feed yet.", lag_s)
        yield _gauge("bucket_dead_letters", "Dead letters that are stored.", self._count_dead_letters())
        yield self._consumer_lag(names_consumers=names_consumers)

    def _consumer_lag(self, *, names_consumers: bool) -> Metric:
        """Return the lags: of consumers of one name the largest, of an expired one +Inf."""
        consumers = self._services.consumers.all(None)
        positions = [consumer.position for consumer in consumers]
        lags = self._services.feed_reader.changes_behind(positions) if consumers else ()
        by_name: dict[str, float] = {}
        for consumer, lag in zip(consumers, lags, strict=True):
            is_named = names_consumers and (consumer.name in by_name or len(by_name) < CONSUMERS_MAX)
            name = consumer.name if is_named else _OTHER
            by_name[name] = max(by_name.get(name, 0.0), math.inf if lag is None else lag)
        family = GaugeMetricFamily(
            "bucket_consumer_lag", "Changes of the feed that it has not acknowledged.", labels=["consumer"]
        )
        for name, largest in by_name.items():
            family.add_metric([name], largest)
        return family

    def _count_dead_letters(self) -> int:
        with self._lock:
            until, count = self._dead_letters
            if time.monotonic() >= until:
                count = self._services.dead_letters.count()
                self._dead_letters = (time.monotonic() + DEAD_LETTERS_EVERY_S, count)
            return count


def _queue_families(by_queue: Mapping[str, QueueFigures]) -> Iterator[Metric]:
    for name, (text, value_of) in _QUEUE_FAMILIES.items():
        family = GaugeMetricFamily(name, text, labels=["queue"])
        for queue, figures in by_queue.items():
            family.add_metric([queue], value_of(figures))
        yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family
