"""Optimistic writes: the filter of a decision (version, lease with fencing token), its update, and that of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.domain.execution import LOG_LINES_MAX, Execution, Lease, LogEvent
from shared.domain.lifecycle.decision import Decision
from shared.domain.status import ExecutionStatus
from shared.store.executions.documents import diff_update, encode_event
from shared.store.executions.write_filters import execution_filter, lease_filter

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeaseRenewal:
    """The result of a heartbeat: the revision and the status of the execution that it renewed."""

    rev: int
    status: ExecutionStatus


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """Log lines and progress of an agent since its last report; ``dropped`` counts the lines that were too many."""

    events: Sequence[LogEvent] = ()
    percent: int | None = None
    message: str | None = None
    dropped: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to report."""
        return not self.events and self.percent is None and self.message is None


def decision_filter(before: Execution, decision: Decision, lease: Lease | None) -> _Document:
    """Build the filter of a decision: the version it was made on and, from a worker, the lease."""
    query = execution_filter(before.integrator, before.id) | {"version": before.version}
    if lease is not None:
        query |= lease_filter(lease)
    if decision.rescued_step is not None:
        query[f"steps.{decision.rescued_step}.due_by"] = before.steps[decision.rescued_step].due_by
    return query


def decision_update(before: Execution, decision: Decision) -> _Document:
    """Build the update of a decision, with the outputs that are stored in the execution itself."""
    update = diff_update(before, decision.execution)
    for output in decision.outputs:
        if not output.is_external:
            update.setdefault("$set", {})[f"outputs.{output.step}"] = output.json
    return _with_counters(update, decision.events, is_decision=True)


def report_update(step: str, report: ProgressReport) -> _Document:
    """Build the update that adds the log lines and the progress of a step, which never goes back."""
    update: _Document = {}
    if report.message is not None:
        update["$set"] = {f"steps.{step}.message": report.message}
    if report.percent is not None:
        update["$max"] = {f"steps.{step}.percent": report.percent}
    return _with_counters(update, report.events, is_decision=False, dropped=report.dropped)


def _with_counters(update: _Document, events: Sequence[LogEvent], *, is_decision: bool, dropped: int = 0) -> _Document:
    """Add log lines and counters to ``update`` and return it; every change that pollers can see goes through here."""
    increments = {"version": 1} if is_decision else {}
    if events or not is_decision:
        increments |= {"rev": 1, "lines": len(events) + dropped}
        update["$currentDate"] = {"updated_at": True}
    if events:
        # The newest are kept; their ``seq`` follows from their position.
        update["$push"] = {"events": {"$each": [encode_event(event) for event in events], "$slice": -LOG_LINES_MAX}}
    update["$inc"] = increments
    return update
