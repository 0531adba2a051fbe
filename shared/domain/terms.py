"""The periods and limits that decisions go by, and the decision that they come to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from shared.domain.execution import EVENTS_KEPT, Event, Execution, Record, Step
from shared.domain.status import StepStatus

HANDOFF_MAX: Final = timedelta(seconds=60)
STRANGER_REST_MIN: Final = timedelta(seconds=5)
STRANGER_REST_MAX: Final = timedelta(seconds=60)
STRANGER_KEPT: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Terms:
    """The periods and limits that decisions go by."""

    lease: timedelta = timedelta(seconds=30)
    handoff: timedelta = timedelta(seconds=5)
    losses_max: int = 3

    @property
    def ahead_max(self) -> timedelta:
        """How far ahead a lease or a hand-off can end; one further ahead was set by a clock that has since jumped."""
        return max(self.lease, self.waiting, HANDOFF_MAX)

    @property
    def waiting(self) -> timedelta:
        """How long a step is left alone whose message still waits in a long queue."""
        return 12 * self.handoff

    def handoff_after(self, offers: int) -> timedelta:
        """How long an offered step may wait for its claim: doubling with each offer, at most a minute."""
        doubled: timedelta = self.handoff * (1 << min(max(offers - 1, 0), 16))
        return max(self.handoff, min(doubled, HANDOFF_MAX))


@dataclass(frozen=True, slots=True)
class Output:
    """What a step returned, as JSON bytes; ``apart`` where it is too large to lie in the execution."""

    step: str
    json: bytes
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Advance:
    """What an event leads to: what to write, what to run here, what to hand out."""

    execution: Execution
    run_here: str | None = None
    hand_out: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    outputs: tuple[Output, ...] = ()
    rescued: str | None = None
    """The step whose due moment must still be the one that was seen: a lease just renewed is not taken."""
    lock_only: bool = False
    """True for a claim written alone: a lock and no record, for which no majority need be waited for."""

    @property
    def as_accepted(self) -> Record:
        """The record of a run just started, which nobody has written to yet."""
        return Record(self.execution, self.events, len(self.events))

    def written_on(self, before: Record) -> Record:
        """The record after this decision was written on ``before``, where nobody wrote between."""
        seen = before.execution
        rev = seen.rev + 1 if self.events else seen.rev
        after = replace(self.execution, version=seen.version + 1, rev=rev)
        outputs = {**before.outputs, **{output.step: output.json for output in self.outputs if not output.apart}}
        events = (*before.events, *self.events)[-EVENTS_KEPT:]
        return Record(after, events, before.lines_total + len(self.events), outputs)


def is_due(execution: Execution, step: Step, now: datetime, terms: Terms) -> bool:
    """True where what a step's due moment stands for did not happen, or where no clock could have set it."""
    if step.due_by is None:
        return False
    if step.due_by <= now:
        return True
    if not step.rests:
        return step.due_by > now + terms.ahead_max
    retried = step.status is StepStatus.READY and step.failures > 0
    longest = timedelta(seconds=execution.basket.step(step.id).retry.wait_max_s)
    return retried and step.due_by > now + max(longest, terms.ahead_max)
