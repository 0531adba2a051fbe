"""Grace periods of a reconciler: the times after a start, an outage or a jump of the clock in which it must not act.

Workers that could not renew their leases are not dead, and a frozen mongod applies late inserts when it wakes.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from shared.clock import boottime_s
from shared.domain.execution import Step
from shared.domain.status import StepStatus
from shared.settings import Settings

CLOCK_JUMP_MIN: Final = timedelta(seconds=1)
STORED_AT_RESOLUTION: Final = timedelta(seconds=1)


class GracePeriods:
    """One reconciler's grace periods, derived from lease and hand-off time; its times are in seconds since boot."""

    def __init__(self, settings: Settings) -> None:
        self._lease_s = settings.lease_s
        self._handoff = timedelta(seconds=settings.handoff_s)
        self._heartbeat_s = settings.heartbeat_s
        self._may_expire_at = 0.0
        self._may_offer_at = 0.0
        self._pass_began_at = self._pass_ended_at = boottime_s()
        self._is_store_away = False
        self._begin_outage_grace()

    def _begin_outage_grace(self) -> None:
        """Rescue no running step for half a lease; offer no unclaimed first offer again for a hand-off time.

        Such a step may belong to a run that the API is about to withdraw (docs/engine.md, section 5.1).
        """
        self._may_expire_at = max(self._may_expire_at, boottime_s() + self._lease_s / 2)
        self._may_offer_at = boottime_s() + self._handoff.total_seconds()

    def begin_pass(self) -> None:
        """Record that a pass begins; if the last one ended long ago, this counts as one after an outage."""
        self._pass_began_at = boottime_s()
        if self._pass_began_at - self._pass_ended_at > self._heartbeat_s:
            self._begin_outage_grace()  # this process stood still, and perhaps the whole machine did

    def record_failed_pass(self) -> None:
        """Record that the store did not reply to a pass; the grace period begins when it replies again."""
        self._is_store_away = True

    def record_replies(self) -> None:
        """Record that the store replied to a pass; after an outage, the grace period begins now.

        Replies that took over a heartbeat period are an outage too: a mongod that was frozen answers when it goes on.
        """
        if self._is_store_away or boottime_s() - self._pass_began_at > self._heartbeat_s:
            self._begin_outage_grace()
        self._is_store_away = False

    def end_pass(self) -> None:
        """Record that a pass has ended."""
        self._pass_ended_at = boottime_s()

    def begin_clock_jump_grace(self, jump: timedelta) -> bool:
        """Rescue no running step for a lease if the store's clock jumped by over a second; return whether it did."""
        if abs(jump) <= CLOCK_JUMP_MIN:
            return False
        self._may_expire_at = max(self._may_expire_at, boottime_s() + self._lease_s)
        return True

    @property
    def may_expire_running(self) -> bool:
        """Whether leases and deadlines that look expired may be treated as expired."""
        return boottime_s() >= self._may_expire_at

    def may_offer(self, step: Step) -> bool:
        """Return whether a due step may be offered again."""
        if step.status is StepStatus.RUNNING:
            return self.may_expire_running
        return boottime_s() >= self._may_offer_at or step.offers != 1 or step.claims > 0

    def is_just_inserted(self, stored_at: datetime, now: datetime) -> bool:
        """Return whether mongod applied the insert just now.

        Then the caller may have received an error, and the API may be about to withdraw the run.
        """
        return now < stored_at + STORED_AT_RESOLUTION + self._handoff
