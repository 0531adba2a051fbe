"""The decision: the value that every transition returns, and that one optimistic write stores."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared.domain.execution import LOG_LINES_MAX, Execution, ExecutionRecord, LogEvent


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The output of a step as JSON bytes; ``is_external`` if it is too large to be stored in the execution."""

    step: str
    json: bytes
    is_external: bool = False
    marked: bytes | None = None
    """The marked fields that ``json`` lacks, sealed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of a transition: the new execution, the step to run next here, the steps to offer, log lines."""

    execution: Execution
    next_step: str | None = None
    dispatch: tuple[str, ...] = ()
    events: tuple[LogEvent, ...] = ()
    outputs: tuple[StepOutput, ...] = ()
    rescued_step: str | None = None
    """The step whose stored due time must be unchanged at the write, so that a lease just renewed is not taken away."""
    is_lock_only: bool = False
    """Whether it is only a claim: a lock and not a result, so its write need not wait for a majority."""

    @property
    def initial_record(self) -> ExecutionRecord:
        """The record of a run just accepted, before any other write."""
        return ExecutionRecord(self.execution, self.events, len(self.events))

    def apply_to(self, before: ExecutionRecord) -> ExecutionRecord:
        """Return the record after this decision is written on ``before``, if there is no write in between."""
        previous = before.execution
        rev = previous.rev + 1 if self.events else previous.rev
        after = replace(self.execution, version=previous.version + 1, rev=rev)
        outputs = {**before.outputs, **{output.step: output.json for output in self.outputs if not output.is_external}}
        events = (*before.events, *self.events)[-LOG_LINES_MAX:]
        return ExecutionRecord(after, events, before.lines_total + len(self.events), outputs)
