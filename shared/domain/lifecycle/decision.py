"""The decision: the value that every transition returns, and that one write stores."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared.domain.execution import EVENTS_KEPT, Event, Execution, Record


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
