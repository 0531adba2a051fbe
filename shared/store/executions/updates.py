"""Optimistic write of a decision: its filter (version, lease with fencing token) and its update with the counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.domain.execution import Execution, Lease, LogEvent
from shared.domain.lifecycle.decision import Decision
from shared.store.executions.documents import diff_update, encode_event, push_log_lines
from shared.store.executions.filters import execution_filter, lease_filter

_Document = dict[str, Any]


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
    return with_counters(update, decision.events, is_decision=True)


def with_counters(update: _Document, events: Sequence[LogEvent], *, is_decision: bool, dropped: int = 0) -> _Document:
    """Add log lines and counters to ``update`` and return it; every change that pollers can see goes through here."""
    increments = {"version": 1} if is_decision else {}
    if events or not is_decision:
        increments |= {"rev": 1, "lines": len(events) + dropped}
        update["$currentDate"] = {"updated_at": True}
    if events:
        update["$push"] = push_log_lines([encode_event(event) for event in events])
    update["$inc"] = increments
    return update


def set_or_unset(fields: _Document) -> _Document:
    """Build the update that sets the fields that have a value and removes those that are None."""
    to_set = {name: value for name, value in fields.items() if value is not None}
    to_unset = {name: "" for name, value in fields.items() if value is None}
    return {operator: names for operator, names in (("$set", to_set), ("$unset", to_unset)) if names}
