"""Timings of the engine: lease, hand-off time with back-off, limits of losses and delays, and the overdue check."""

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
    """The periods and limits that decisions use; ``handoff`` is the first hand-off time of an offer."""

    lease: timedelta = timedelta(seconds=30)
    handoff: timedelta = timedelta(seconds=5)
    losses_max: int = 3

    @property
    def due_ahead_max(self) -> timedelta:
        """The furthest a due time can be ahead of now; one further ahead was set before the clock jumped back."""
        return max(self.lease, self.queued_grace, HANDOFF_MAX)

    @property
    def queued_grace(self) -> timedelta:
        """The time for which a step is not offered again while its message still waits in a long queue."""
        return 12 * self.handoff

    def handoff_timeout(self, offers: int) -> timedelta:
        """Return the hand-off time of the ``offers``-th offer: exponential back-off (doubling), at most a minute.

        It is the time within which an offered step should be claimed (a visibility timeout).
        """
        doubled: timedelta = self.handoff * (1 << min(max(offers - 1, 0), 16))
        return max(self.handoff, min(doubled, HANDOFF_MAX))


def is_overdue(execution: Execution, step: Step, now: datetime, timings: Timings) -> bool:
    """Return whether the due time of a step has passed, or is too far ahead to be real (the clock has jumped)."""
    if step.due_by is None:
        return False
    if step.due_by <= now:
        return True
    if not step.is_delayed:
        return step.due_by > now + timings.due_ahead_max
    retried = step.status is StepStatus.READY and step.failures > 0
    delay_max = timedelta(seconds=execution.basket.step(step.id).retry.wait_max_s)
    return retried and step.due_by > now + max(delay_max, timings.due_ahead_max)
