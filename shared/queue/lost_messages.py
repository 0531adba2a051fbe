"""Tells a long queue from a lost message: by the stamp of the oldest message of each list.

A list's right end is its oldest message. A step's message is lost where its list is empty, or where the right end is
a whole hand-off younger than the message would be. Not sooner: stamps lie out of order by a tenth of a second and are
often equal, and a strict comparison took most of 5,000 waiting messages for lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import redis

from shared.domain.execution import Step
from shared.queue.dequeue import UnreadableMessage, read_bell
from shared.queue.message import QUEUES, list_of, lists_of, priority_of

_EMPTY: Final = datetime.max.replace(tzinfo=UTC)
_UNREADABLE: Final = datetime.min.replace(tzinfo=UTC)


class QueueEnds:
    """What the oldest messages of all lists said when they were looked at."""

    def __init__(self, oldest: Mapping[str, datetime]) -> None:
        self._oldest = oldest

    def has_lost(self, step: Step, queue: str, handoff: timedelta) -> bool:
        """True where the message of an offered step cannot wait in its list any more."""
        if step.offered_at is None:
            return True
        oldest = self._oldest[list_of(queue, priority_of(step))]
        return oldest == _EMPTY or oldest - step.offered_at > handoff


def look(client: redis.Redis) -> QueueEnds:
    """Look at the right end of each list, in one round trip; raises RedisError."""
    names = [name for queue in QUEUES for name in lists_of(queue)]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.lindex(name, -1)
    return QueueEnds({name: _stamp(message) for name, message in zip(names, pipe.execute(), strict=True)})


def _stamp(message: Any) -> datetime:
    """The stamp of a message; one that cannot be read counts as waiting, for its list is not empty."""
    if message is None:
        return _EMPTY
    try:
        return read_bell(message).stamp
    except UnreadableMessage:
        return _UNREADABLE
