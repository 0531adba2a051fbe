"""The decision: the value that every transition returns, and that one write stores."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared.domain.execution import LOG_LINES_MAX, Execution, ExecutionRecord, LogEvent


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step returned, as JSON bytes; ``apart`` where it is too large to lie in the execution."""

    step: str
    json: bytes
    is_external: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What an event leads to: what to write, what to run here, what to hand out."""

    execution: Execution
    next_step: str | None = None
    dispatch: tuple[str, ...] = ()
    events: tuple[LogEvent, ...] = ()
    outputs: tuple[StepOutput, ...] = ()
    rescued_step: str | None = None
    """The step whose due moment must still be the one that was seen: a lease just renewed is not taken."""
    is_lock_only: bool = False
    """True for a claim written alone: a lock and no record, for which no majority need be waited for."""

    @property
    def initial_record(self) -> ExecutionRecord:
        """The record of a run just started, which nobody has written to yet."""
        return ExecutionRecord(self.execution, self.events, len(self.events))

    def apply_to(self, before: ExecutionRecord) -> ExecutionRecord:
        """The record after this decision was written on ``before``, where nobody wrote between."""
        seen = before.execution
        rev = seen.rev + 1 if self.events else seen.rev
        after = replace(self.execution, version=seen.version + 1, rev=rev)
        outputs = {**before.outputs, **{output.step: output.json for output in self.outputs if not output.is_external}}
        events = (*before.events, *self.events)[-LOG_LINES_MAX:]
        return ExecutionRecord(after, events, before.lines_total + len(self.events), outputs)
