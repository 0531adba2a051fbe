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
from shared.queue.dequeue import UnreadableMessage, decode_message
from shared.queue.message import QUEUES, list_key, list_keys, priority_of

_EMPTY: Final = datetime.max.replace(tzinfo=UTC)
_UNREADABLE: Final = datetime.min.replace(tzinfo=UTC)


class LostMessageDetector:
    """What the oldest messages of all lists said when they were looked at."""

    def __init__(self, oldest: Mapping[str, datetime]) -> None:
        self._oldest = oldest

    def is_lost(self, step: Step, queue: str, handoff: timedelta) -> bool:
        """True where the message of an offered step cannot wait in its list any more."""
        if step.offered_at is None:
            return True
        oldest = self._oldest[list_key(queue, priority_of(step))]
        return oldest == _EMPTY or oldest - step.offered_at > handoff


def read_oldest_messages(client: redis.Redis) -> LostMessageDetector:
    """Look at the right end of each list, in one round trip; raises RedisError."""
    names = [name for queue in QUEUES for name in list_keys(queue)]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.lindex(name, -1)
    return LostMessageDetector(
        {name: _offered_at(message) for name, message in zip(names, pipe.execute(), strict=True)}
    )


def _offered_at(message: Any) -> datetime:
    """The stamp of a message; one that cannot be read counts as waiting, for its list is not empty."""
    if message is None:
        return _EMPTY
    try:
        return decode_message(message).offered_at
    except UnreadableMessage:
        return _UNREADABLE
