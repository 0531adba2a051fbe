"""Word in Redis that the insert of a run which waits for a moment was answered: nobody will take it back. May be lost.

Who looks for overdue steps leaves alone what was stored just now, for its caller may have been told no. A run of which
there is word is looked after at its moment all the same; one whose word was lost, somewhat later.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import redis

from shared.domain.execution import Execution

ACCEPT_MARKER_TTL_S: Final = 60


def mark_accepted(pipe: Any, accepted: Execution) -> None:
    """Leave word, by a pipeline, of a run whose insert was answered, where a moment that it waits for is near."""
    moments = [step.due_by for step in accepted.steps.values() if step.is_delayed]
    moments += [accepted.start_deadline, accepted.deadline]
    soon = accepted.created_at + timedelta(seconds=ACCEPT_MARKER_TTL_S)
    if any(moment is not None and moment < soon for moment in moments):
        pipe.set(_key(accepted.id), b"1", ex=ACCEPT_MARKER_TTL_S)


def find_marked(client: redis.Redis, execution_ids: Sequence[str]) -> set[str]:
    """Answer those of which there is word; raises RedisError."""
    if not execution_ids:
        return set()
    found = client.mget([_key(each) for each in execution_ids])
    return {each for each, word in zip(execution_ids, found, strict=True) if word is not None}


def _key(execution_id: str) -> str:
    return f"accepted:{execution_id}"
