"""Quotas of each integrator: refuses a new run while its integrator has as many as it may.

The use is counted in MongoDB, so it is true after any crash. A count is used again for a second, or until the runs that
this process has accepted since are an eighth of what was left then; a refusal needs a count of this moment. So beyond a
quota are at most the runs that other processes are accepting at this moment.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from flask.globals import app_ctx

from api.auth.current_caller import current_caller
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.status import ExecutionStatus
from shared.errors import QuotaExceeded
from shared.limits import Quota, quota_of
from shared.store.executions.usage import MongoUsage
from shared.telemetry import request_metrics

VALID_S: Final = 1.0
REFUSED_AGAIN_S: Final = 0.1
"""How old a count may be that refuses: a flood of refused submits is not one of counts."""
_SHARE_MAX: Final = 1 / 8
_SETTLED_AFTER: Final = timedelta(minutes=1)
"""No run is stored so long after its creation: the time limits of a submit are far shorter."""
_RECOUNTED_MAX: Final = timedelta(minutes=5)
_NO_DAY: Final = datetime.min.replace(tzinfo=UTC)
_WAIT_S: Final = 0.01
_WAITS_MAX: Final = 10
_WAITING: Final = (ExecutionStatus.SCHEDULED, ExecutionStatus.QUEUED)
_LIVE: Final = tuple(status for status in ExecutionStatus if not status.is_final)
_RETRY_AFTER_S: Final = {"queued": 5, "running": 5, "stored_bytes": 300}
_TEXTS: Final = {
    "queued": ("runs that wait", "wait until some have begun, or submit more slowly"),
    "running": ("runs that are not done", "wait until some are done"),
    "runs_per_day": ("runs a day", "the next day begins at midnight, UTC"),
    "stored_bytes": ("bytes stored", "runs that are older than the retention make room"),
}


@dataclass(slots=True)
class _DayCount:
    """The runs of one day (UTC): those created before ``until`` are counted once, as no more of them can come."""

    day: datetime = _NO_DAY
    until: datetime = _NO_DAY
    runs: int = 0

    def count(self, usage: MongoUsage, integrator: str, now: datetime) -> int:
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if day != self.day or now < self.until:
            self.day, self.until, self.runs = day, day, 0
        if now - self.until > _RECOUNTED_MAX:
            until = now - _SETTLED_AFTER
            self.runs += usage.count_created(integrator, self.until, until)
            self.until = until
        return self.runs + usage.count_created(integrator, self.until)


@dataclass(slots=True, eq=False)
class _Use:
    """What an integrator has, as this process knows it: what was counted, accepted since, and is being accepted."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    counted: Mapping[str, int] = field(default_factory=dict)
    counted_at_s: float = -math.inf
    accepted_since: int = 0
    in_flight: int = 0
    day: _DayCount = field(default_factory=_DayCount)


@dataclass(slots=True, eq=False)
class _Reservation:
    """What the current request may add: ``runs`` are those that were permitted so far."""

    use: _Use
    runs: int = 0
    began_at_s: float = field(default_factory=boottime_s)


@dataclass(frozen=True, slots=True)
class _Refusal:
    quota: str
    limit: int
    used: int
    is_certain: bool


class QuotaGuard:
    """Checks new runs against the quota of the caller's integrator; without one, it costs nothing."""

    def __init__(self, services: Services, stored_bytes_of: Callable[[str], int]) -> None:
        self._quotas = services.settings.quotas
        self._usage = services.usage
        self._stored_bytes_of = stored_bytes_of
        self._now = services.clock.now
        self._uses: dict[str, _Use] = {}

    def check(self, already_queued: int = 0) -> None:
        """Raise QuotaExceeded if the caller's integrator may have no run more than ``already_queued`` of this request.

        What is permitted is reserved until :func:`release_quota`. Raises Unavailable if nothing can be counted.
        """
        if not self._quotas:
            return
        integrator = current_caller().integrator
        quota = quota_of(self._quotas, integrator)
        if quota is None:
            return
        use = self._uses.setdefault(integrator, _Use())
        reservation: _Reservation = app_ctx.g.setdefault("quota_reservation", _Reservation(use))
        refusal = self._reserve(integrator, quota, reservation, already_queued)
        for _ in range(_WAITS_MAX):
            if refusal is None:
                return
            if refusal.is_certain:
                break
            time.sleep(_WAIT_S)
            refusal = self._reserve(integrator, quota, reservation, already_queued)
        if refusal is not None:
            request_metrics.count_refusal(refusal.quota)
            raise self._error(integrator, refusal)

    def _reserve(
        self, integrator: str, quota: Quota, reservation: _Reservation, already_queued: int
    ) -> _Refusal | None:
        """Reserve one more run for this request; return what refuses it, if anything does."""
        use = reservation.use
        limits = {name: limit for name in _TEXTS if (limit := getattr(quota, name)) is not None}
        with use.lock:
            others = use.in_flight - reservation.runs
            if self._must_count(use, limits, others + already_queued, reservation.began_at_s):
                use.counted, use.accepted_since = self._count(integrator, quota, use.day), 0
                use.counted_at_s = boottime_s()
            pending = use.accepted_since + others + already_queued
            for name, limit in limits.items():
                counted = use.counted[name]
                if counted + (0 if name == "stored_bytes" else pending) >= limit:
                    # Those that are being accepted may have been counted already.
                    is_certain = counted + already_queued >= limit or not others
                    return _Refusal(name, limit, counted + already_queued, is_certain)
            use.in_flight += already_queued + 1 - reservation.runs
            reservation.runs = already_queued + 1
        return None

    def _must_count(self, use: _Use, limits: Mapping[str, int], pending: int, began_at_s: float) -> bool:
        """Return whether the last count is too old for what it has to decide."""
        age_s = boottime_s() - use.counted_at_s
        if age_s > VALID_S:
            return True
        left = min(
            (limit - use.counted[name] for name, limit in limits.items() if name != "stored_bytes"), default=math.inf
        )
        is_near = use.accepted_since + pending + 1 > _SHARE_MAX * left
        return is_near and use.counted_at_s < began_at_s and (left > 0 or age_s > REFUSED_AGAIN_S)

    def _count(self, integrator: str, quota: Quota, day: _DayCount) -> Mapping[str, int]:
        counts = {}
        if quota.running is not None or quota.queued is not None:
            statuses = _WAITING if quota.running is None else _LIVE
            limit = quota.queued if quota.running is None else quota.running
            by_status = self._usage.count_by_status(integrator, statuses, limit or 0)
            counts["running"] = sum(by_status.values())
            counts["queued"] = sum(by_status.get(str(status), 0) for status in _WAITING)
        if quota.runs_per_day is not None:
            counts["runs_per_day"] = day.count(self._usage, integrator, self._now())
        if quota.stored_bytes is not None:
            counts["stored_bytes"] = self._stored_bytes_of(integrator)
        return counts

    def _error(self, integrator: str, refusal: _Refusal) -> QuotaExceeded:
        what, advice = _TEXTS[refusal.quota]
        retry_after_s = _RETRY_AFTER_S.get(refusal.quota)
        if retry_after_s is None:
            now = self._now()
            midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
            retry_after_s = math.ceil((midnight - now).total_seconds())
        return QuotaExceeded(
            f"the integrator {integrator} may have {refusal.limit:,} {what} (quota {refusal.quota}) and has "
            f"{refusal.used:,}; nothing was stored: {advice}, or ask an operator of this server for more",
            retry_after_s=retry_after_s + random.randint(0, 2),  # noqa: S311
            quota=refusal.quota,
            limit=refusal.limit,
            used=refusal.used,
        )


def release_quota() -> None:
    """End the reservation of the current request: its runs are stored or refused, and the next count has them."""
    reservation: _Reservation | None = app_ctx.g.pop("quota_reservation", None)
    if reservation is not None:
        use = reservation.use
        with use.lock:
            use.in_flight -= reservation.runs
            use.accepted_since += reservation.runs
