"""When a reconciler may act: workers that could not renew are not dead, and a frozen mongod wakes with late inserts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from shared.clock import since_boot
from shared.domain.execution import Step
from shared.domain.status import StepStatus
from shared.settings import Settings

CLOCK_JUMP: Final = timedelta(seconds=1)
STORED_RESOLUTION: Final = timedelta(seconds=1)


class Patience:
    """One reconciler's; all of it derives from lease and hand-off, and is counted in seconds since boot."""

    def __init__(self, settings: Settings) -> None:
        self._lease_s = settings.lease_s
        self._handoff = timedelta(seconds=settings.handoff_s)
        self._heartbeat_s = settings.heartbeat_s
        self._running_from = 0.0
        self._first_offers_from = 0.0
        self._looked_at = since_boot()
        self.after_outage()

    def after_outage(self) -> None:
        """Leave what runs alone for half a lease, and what was never offered for a hand-off."""
        self._running_from = max(self._running_from, since_boot() + self._lease_s / 2)
        self._first_offers_from = since_boot() + self._handoff.total_seconds()

    def begin_look(self) -> None:
        """Note that a look begins: one long after the last is as one after an outage."""
        if since_boot() - self._looked_at > self._heartbeat_s:
            self.after_outage()  # this process stood still, and perhaps the whole machine did

    def end_look(self) -> None:
        """Note that a look has ended."""
        self._looked_at = since_boot()

    def note_jump(self, jump: timedelta) -> bool:
        """Leave what runs alone for a lease where the store's clock jumped; answer whether it did."""
        if abs(jump) <= CLOCK_JUMP:
            return False
        self._running_from = max(self._running_from, since_boot() + self._lease_s)
        return True

    @property
    def may_end_what_runs(self) -> bool:
        """True where leases and deadlines may be believed to be over."""
        return since_boot() >= self._running_from

    def may_offer(self, step: Step) -> bool:
        """True where a due step may be offered again."""
        if step.status is StepStatus.RUNNING:
            return self.may_end_what_runs
        return since_boot() >= self._first_offers_from or step.offers != 1 or step.claims > 0

    def is_fresh(self, stored_at: datetime, now: datetime) -> bool:
        """True where mongod applied the insert just now: its caller may have been told no, and the API withdraws it."""
        return now < stored_at + STORED_RESOLUTION + self._handoff
