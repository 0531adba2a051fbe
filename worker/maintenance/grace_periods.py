"""When a reconciler may act: workers that could not renew are not dead, and a frozen mongod wakes with late inserts."""

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
    """One reconciler's; all of it derives from lease and hand-off, and is counted in seconds since boot."""

    def __init__(self, settings: Settings) -> None:
        self._lease_s = settings.lease_s
        self._handoff = timedelta(seconds=settings.handoff_s)
        self._heartbeat_s = settings.heartbeat_s
        self._may_expire_at = 0.0
        self._may_offer_at = 0.0
        self._pass_ended_at = boottime_s()
        self.begin_outage_grace()

    def begin_outage_grace(self) -> None:
        """Leave what runs alone for half a lease, and what was never offered for a hand-off."""
        self._may_expire_at = max(self._may_expire_at, boottime_s() + self._lease_s / 2)
        self._may_offer_at = boottime_s() + self._handoff.total_seconds()

    def begin_pass(self) -> None:
        """Note that a look begins: one long after the last is as one after an outage."""
        if boottime_s() - self._pass_ended_at > self._heartbeat_s:
            self.begin_outage_grace()  # this process stood still, and perhaps the whole machine did

    def end_pass(self) -> None:
        """Note that a look has ended."""
        self._pass_ended_at = boottime_s()

    def begin_clock_jump_grace(self, jump: timedelta) -> bool:
        """Leave what runs alone for a lease where the store's clock jumped; answer whether it did."""
        if abs(jump) <= CLOCK_JUMP_MIN:
            return False
        self._may_expire_at = max(self._may_expire_at, boottime_s() + self._lease_s)
        return True

    @property
    def may_expire_running(self) -> bool:
        """True where leases and deadlines may be believed to be over."""
        return boottime_s() >= self._may_expire_at

    def may_offer(self, step: Step) -> bool:
        """True where a due step may be offered again."""
        if step.status is StepStatus.RUNNING:
            return self.may_expire_running
        return boottime_s() >= self._may_offer_at or step.offers != 1 or step.claims > 0

    def is_just_inserted(self, stored_at: datetime, now: datetime) -> bool:
        """True where mongod applied the insert just now: its caller may have been told no, and the API withdraws it."""
        return now < stored_at + STORED_AT_RESOLUTION + self._handoff
