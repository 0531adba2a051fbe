"""Accept markers in Redis: the insert of a run was confirmed, so the API will not withdraw it. May be lost.

The reconciler leaves runs alone that were stored just now, because the API may still withdraw them (its caller got an
error). A run with an accept marker is handled at its due time all the same; one whose marker was lost, somewhat later.
Only runs with a due time in the near future get a marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import redis

from shared.domain.execution import Execution

ACCEPT_MARKER_TTL_S: Final = 60


def mark_accepted(pipe: Any, execution: Execution) -> None:
    """Append to ``pipe`` the marker of a run whose insert was confirmed, if one of its due times is near."""
    due_times = [step.due_by for step in execution.steps.values() if step.is_delayed]
    due_times += [execution.start_deadline, execution.deadline]
    soon = execution.created_at + timedelta(seconds=ACCEPT_MARKER_TTL_S)
    if any(moment is not None and moment < soon for moment in due_times):
        pipe.set(_key(execution.id), b"1", ex=ACCEPT_MARKER_TTL_S)


def find_marked(client: redis.Redis, execution_ids: Sequence[str]) -> set[str]:
    """Return those of the executions that have a marker; raises RedisError."""
    if not execution_ids:
        return set()
    markers = client.mget([_key(execution_id) for execution_id in execution_ids])
    return {execution_id for execution_id, marker in zip(execution_ids, markers, strict=True) if marker is not None}


def _key(execution_id: str) -> str:
    return f"accepted:{execution_id}"
