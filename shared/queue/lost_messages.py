"""Detects lost task messages: tells them from a long backlog by the offer time of the oldest message of each list.

The right end of a list is its oldest message. A step's message is lost if its list is empty, or if the message at the
right end was offered later than the step by more than the hand-off time. A smaller difference proves nothing: offer
times are out of order by up to a tenth of a second and often equal, and a strict comparison took most of 5,000 waiting
messages for lost (docs/engine.md, section 5.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import redis

from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.execution import Step
from shared.queue.dequeue import UnreadableMessage, decode_message
from shared.queue.message import list_key, list_keys
from shared.queue.write_check import check_writable

_EMPTY: Final = datetime.max.replace(tzinfo=UTC)
_UNREADABLE: Final = datetime.min.replace(tzinfo=UTC)


class LostMessageDetector:
    """The offer times of the oldest messages of all lists, as they were when read."""

    def __init__(self, oldest: Mapping[str, datetime]) -> None:
        self._oldest = oldest

    def is_lost(self, step: Step, queue: str, handoff: timedelta) -> bool:
        """Return whether the message of an offered step cannot be in its list any more."""
        if step.offered_at is None:
            return True
        oldest = self._oldest[list_key(queue, step.priority)]
        return oldest == _EMPTY or oldest - step.offered_at > handoff

    def has_turn_passed(self, step: Step, queue: str) -> bool:
        """Return whether a message that was offered later is the oldest: the step's own has left, or is about to."""
        oldest = self._oldest[list_key(queue, step.priority)]
        return step.offered_at is not None and oldest > step.offered_at


def read_oldest_messages(client: redis.Redis) -> LostMessageDetector:
    """Read the oldest message of each list, in one round trip.

    Raises RedisError, also if Redis would take no message.
    """
    list_names = [name for queue in QUEUE_NAMES for name in list_keys(queue)]
    pipe = client.pipeline(transaction=False)
    check_writable(pipe)
    for name in list_names:
        pipe.lindex(name, -1)
    _, _, *oldest = pipe.execute()
    return LostMessageDetector(dict(zip(list_names, map(_offered_at, oldest), strict=True)))


def _offered_at(message: Any) -> datetime:
    """Return the offer time of a message; the earliest time if it cannot be read, because its list is not empty."""
    if message is None:
        return _EMPTY
    try:
        return decode_message(message).offered_at
    except UnreadableMessage:
        return _UNREADABLE
