"""What a decision's write must find before it counts, and what it then changes: alone or beside others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.domain.execution import Event, Execution, Lease
from shared.domain.lifecycle.decision import Advance
from shared.store.executions.documents import difference, encode_event, pushed
from shared.store.executions.filters import living, under

_Document = dict[str, Any]


def expected(before: Execution, advance: Advance, lease: Lease | None) -> _Document:
    """Answer the filter of a decision: the version it was made on and, from a worker, the lease."""
    accepted = living(before.integrator, before.id) | {"version": before.version}
    if lease is not None:
        accepted |= under(lease)
    if advance.rescued is not None:
        accepted[f"steps.{advance.rescued}.due_by"] = before.steps[advance.rescued].due_by
    return accepted


def changes(before: Execution, advance: Advance) -> _Document:
    """Answer the update that a decision comes to, with those outputs that lie in the execution itself."""
    update = difference(before, advance.execution)
    for output in advance.outputs:
        if not output.apart:
            update.setdefault("$set", {})[f"outputs.{output.step}"] = output.json
    return counted(update, advance.events, decision=True)


def counted(update: _Document, events: Sequence[Event], *, decision: bool, dropped: int = 0) -> _Document:
    """Answer ``update`` with its log lines and its counts: the one door for every change that pollers can see."""
    counts = {"version": 1} if decision else {}
    if events or not decision:
        counts |= {"rev": 1, "lines": len(events) + dropped}
        update["$currentDate"] = {"updated_at": True}
    if events:
        update["$push"] = pushed([encode_event(event) for event in events])
    update["$inc"] = counts
    return update
