"""What a decision's write must find before it counts, and what it then changes: alone or beside others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.domain.execution import Execution, Lease, LogEvent
from shared.domain.lifecycle.decision import Decision
from shared.store.executions.documents import diff_update, encode_event, push_log_lines
from shared.store.executions.filters import execution_filter, lease_filter

_Document = dict[str, Any]


def decision_filter(before: Execution, decision: Decision, lease: Lease | None) -> _Document:
    """Answer the filter of a decision: the version it was made on and, from a worker, the lease."""
    accepted = execution_filter(before.integrator, before.id) | {"version": before.version}
    if lease is not None:
        accepted |= lease_filter(lease)
    if decision.rescued_step is not None:
        accepted[f"steps.{decision.rescued_step}.due_by"] = before.steps[decision.rescued_step].due_by
    return accepted


def decision_update(before: Execution, decision: Decision) -> _Document:
    """Answer the update that a decision comes to, with those outputs that lie in the execution itself."""
    update = diff_update(before, decision.execution)
    for output in decision.outputs:
        if not output.is_external:
            update.setdefault("$set", {})[f"outputs.{output.step}"] = output.json
    return with_counters(update, decision.events, is_decision=True)


def with_counters(update: _Document, events: Sequence[LogEvent], *, is_decision: bool, dropped: int = 0) -> _Document:
    """Answer ``update`` with its log lines and its counts: the one door for every change that pollers can see."""
    counts = {"version": 1} if is_decision else {}
    if events or not is_decision:
        counts |= {"rev": 1, "lines": len(events) + dropped}
        update["$currentDate"] = {"updated_at": True}
    if events:
        update["$push"] = push_log_lines([encode_event(event) for event in events])
    update["$inc"] = counts
    return update
