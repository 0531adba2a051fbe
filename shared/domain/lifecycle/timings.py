"""The periods and limits that decisions go by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared.domain.execution import Execution, Step
from shared.domain.status import StepStatus

HANDOFF_MAX: Final = timedelta(seconds=60)
UNKNOWN_AGENT_DELAY_MIN: Final = timedelta(seconds=5)
UNKNOWN_AGENT_DELAY_MAX: Final = timedelta(seconds=60)
UNKNOWN_AGENT_TIMEOUT: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Timings:
    """The periods and limits that decisions go by."""

    lease: timedelta = timedelta(seconds=30)
    handoff: timedelta = timedelta(seconds=5)
    losses_max: int = 3

    @property
    def due_ahead_max(self) -> timedelta:
        """How far ahead a lease or a hand-off can end; one further ahead was set by a clock that has since jumped."""
        return max(self.lease, self.queued_grace, HANDOFF_MAX)

    @property
    def queued_grace(self) -> timedelta:
        """How long a step is left alone whose message still waits in a long queue."""
        return 12 * self.handoff

    def handoff_timeout(self, offers: int) -> timedelta:
        """How long an offered step may wait for its claim: doubling with each offer, at most a minute."""
        doubled: timedelta = self.handoff * (1 << min(max(offers - 1, 0), 16))
        return max(self.handoff, min(doubled, HANDOFF_MAX))


def is_overdue(execution: Execution, step: Step, now: datetime, timings: Timings) -> bool:
    """True where what a step's due moment stands for did not happen, or where no clock could have set it."""
    if step.due_by is None:
        return False
    if step.due_by <= now:
        return True
    if not step.is_delayed:
        return step.due_by > now + timings.due_ahead_max
    retried = step.status is StepStatus.READY and step.failures > 0
    longest = timedelta(seconds=execution.basket.step(step.id).retry.wait_max_s)
    return retried and step.due_by > now + max(longest, timings.due_ahead_max)
