"""The parts of the system as GET /health shows them: the state of each, how much it matters, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from api.fleet.fleet_stats import FleetStats
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.errors import BucketError
from shared.live.providers.provider_states import ProviderState
from shared.live.redis_monitor import RedisMonitor, RedisSnapshot
from shared.store.database import Database
from shared.store.feed.reader import FeedReader
from shared.store.fleet.leader_lease import leads_until
from shared.store.server_clock import ServerClock

LEADERLESS_MAX_S: Final = 5.0
"""So long nobody may lead after the last leader's term: another takes over at its next pass."""
FEED_LAG_MAX_S: Final = 15.0
_START_WORKER: Final = "start one with `python -m worker --queues {queue}`"
_UNKNOWN_WITHOUT_REDIS: Final = "not known while Redis is away"
_UNKNOWN_WITHOUT_MONGODB: Final = "not known while MongoDB is away"


class PartStatus(StrEnum):
    """How a part is; ``unknown`` if what knows it is away, which is a part itself."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Criticality(StrEnum):
    """How much a part that is not healthy matters."""

    CRITICAL = "critical"
    """Without it nothing is accepted: the whole is unhealthy."""
    DEGRADING = "degrading"
    """Something does not go on: the whole is degraded."""


@dataclass(frozen=True, slots=True)
class HealthPart:
    """One part; ``detail`` is a sentence for people, which says what to start or to do if it is not healthy."""

    name: str
    status: PartStatus
    criticality: Criticality
    detail: str

    @property
    def is_amiss(self) -> bool:
        """Whether something is to be done."""
        return self.status in {PartStatus.DEGRADED, PartStatus.UNHEALTHY}


def overall_status(parts: Sequence[HealthPart]) -> PartStatus:
    """Return the status of the whole."""
    amiss = {part.criticality for part in parts if part.is_amiss}
    if Criticality.CRITICAL in amiss:
        return PartStatus.UNHEALTHY
    return PartStatus.DEGRADED if Criticality.DEGRADING in amiss else PartStatus.HEALTHY


class HealthParts:
    """Looks at each part; never raises.

    Besides the check of MongoDB it takes two short calls at most, and for a queue without a worker the cached count of
    the backlog.
    """

    def __init__(
        self,
        database: Database,
        clock: ServerClock,
        feed_reader: FeedReader,
        *,
        monitor: RedisMonitor,
        stats: FleetStats,
    ) -> None:
        self._stats = stats
        self._database = database
        self._clock = clock
        self._feed_reader = feed_reader
        self._monitor = monitor

    def check(self, providers: Sequence[ProviderState]) -> list[HealthPart]:
        """Return all parts; ``providers`` are the services that agents call."""
        snapshot = self._monitor.last
        has_mongodb = self._database.is_connected()
        return [
            _mongodb(is_connected=has_mongodb),
            _redis(snapshot),
            _workers(snapshot),
            *self._queues(snapshot, has_mongodb=has_mongodb),
            self._reconciler() if has_mongodb else _unknown("reconciler", _UNKNOWN_WITHOUT_MONGODB),
            self._feed() if has_mongodb else _unknown("feed", _UNKNOWN_WITHOUT_MONGODB),
            _breakers(providers, snapshot),
        ]

    def leads(self) -> bool:
        """Return whether a reconciler leads, or another one is about to; raises Unavailable without MongoDB."""
        until = leads_until(self._database)
        return until is not None and self._clock.now() - until < timedelta(seconds=LEADERLESS_MAX_S)

    def feed_lag_s(self) -> float:
        """Return for how long changes are not in the feed yet, in seconds; raises Unavailable without MongoDB."""
        return max((self._clock.now() - self._feed_reader.end().watermark_at).total_seconds(), 0.0)

    def _queues(self, snapshot: RedisSnapshot, *, has_mongodb: bool) -> Iterator[HealthPart]:
        for queue in QUEUE_NAMES:
            name = f"queue_{queue}"
            if not snapshot.is_connected:
                yield _unknown(name, _UNKNOWN_WITHOUT_REDIS)
                continue
            waiting, workers = snapshot.waiting_in(queue), snapshot.workers_of(queue)
            if not workers and has_mongodb:
                waiting = max(waiting, self._offered(queue))
            is_stuck = bool(waiting) and not workers
            detail = f"{waiting} waiting, {workers} {'worker' if workers == 1 else 'workers'}"
            if is_stuck:
                start = _START_WORKER.format(queue=queue)
                detail = f"{waiting} steps wait in the queue {queue!r} and no worker takes from it; {start}"
            yield HealthPart(name, _healthy_if(not is_stuck), Criticality.DEGRADING, detail)

    def _offered(self, queue: str) -> int:
        """Return how many steps wait by MongoDB: a worker that died or hangs has taken its messages from the list."""
        try:
            return self._stats.queues(None)[queue].queued
        except BucketError:
            return 0  # the part of MongoDB says why

    def _reconciler(self) -> HealthPart:
        try:
            is_led = self.leads()
        except BucketError as error:
            return _unknown("reconciler", error.message)
        if is_led:
            return HealthPart("reconciler", PartStatus.HEALTHY, Criticality.DEGRADING, "a reconciler leads")
        detail = (
            "no reconciler runs: retries, schedules, deadlines and the feed stand still, and runs of dead workers are "
            "not rescued; start one with `python -m worker.reconciler`"
        )
        return HealthPart("reconciler", PartStatus.DEGRADED, Criticality.DEGRADING, detail)

    def _feed(self) -> HealthPart:
        try:
            lag_s = self.feed_lag_s()
        except BucketError as error:
            return _unknown("feed", error.message)
        if lag_s < FEED_LAG_MAX_S:
            return HealthPart("feed", PartStatus.HEALTHY, Criticality.DEGRADING, "changes are in the feed at once")
        detail = (
            f"the feed lags {lag_s:.0f} s: its readers see no newer changes; the relay runs in the reconciler that "
            "leads, so start one with `python -m worker.reconciler`, or start the present one again if it hangs"
        )
        return HealthPart("feed", PartStatus.DEGRADED, Criticality.DEGRADING, detail)


def _mongodb(*, is_connected: bool) -> HealthPart:
    detail = "connected" if is_connected else "MongoDB does not answer: no run is accepted; start it, or see its log"
    return HealthPart("mongodb", _healthy_if(is_connected, PartStatus.UNHEALTHY), Criticality.CRITICAL, detail)


def _redis(snapshot: RedisSnapshot) -> HealthPart:
    detail = "connected"
    if not snapshot.is_connected:
        detail = (
            "Redis does not answer, or refuses writes (it is full, a replica, or cannot save): no run is accepted and "
            "no step begins; start it, or make room, as the log of the API says"
        )
    return HealthPart("redis", _healthy_if(snapshot.is_connected), Criticality.DEGRADING, detail)


def _workers(snapshot: RedisSnapshot) -> HealthPart:
    if not snapshot.is_connected:
        return _unknown("workers", _UNKNOWN_WITHOUT_REDIS)
    if snapshot.workers:
        detail = f"{snapshot.workers} present"
    else:
        detail = "no worker is present, so no run goes on; start one with `python -m worker`"
    return HealthPart("workers", _healthy_if(bool(snapshot.workers)), Criticality.DEGRADING, detail)


def _breakers(providers: Sequence[ProviderState], snapshot: RedisSnapshot) -> HealthPart:
    if not snapshot.is_connected:
        return _unknown("breakers", _UNKNOWN_WITHOUT_REDIS)
    # Half-open is what an open circuit becomes by itself, and stays until somebody calls.
    down = [each for each in providers if each.state == "open" or (each.is_critical and each.is_down)]
    if not down:
        return HealthPart("breakers", PartStatus.HEALTHY, Criticality.DEGRADING, "no circuit is open")
    names = ", ".join(f"{each.name} ({each.state})" for each in down[:10])
    detail = (
        f"calls are refused because these services failed: {names}; look at them, or at the network on the way: each "
        "is tried again by itself, within a minute"
    )
    return HealthPart("breakers", PartStatus.DEGRADED, Criticality.DEGRADING, detail)


def _unknown(name: str, detail: str) -> HealthPart:
    return HealthPart(name, PartStatus.UNKNOWN, Criticality.DEGRADING, detail)


def _healthy_if(is_healthy: bool, otherwise: PartStatus = PartStatus.DEGRADED) -> PartStatus:
    return PartStatus.HEALTHY if is_healthy else otherwise
