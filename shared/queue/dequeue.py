"""Takes the next bells straight from the lists, as Celery's consumer would: for a worker that is free already.

Going back through Celery's consumer costs more than two writes of the store. A bell that is lost between here and its
claim is one of the lost messages that the reconciler offers again.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import redis

from shared.queue.message import PRIORITY_FIRST_OFFER, PRIORITY_STEPS, QUEUES, TaskMessage, list_key, message_from_args

_BATCHED_LIST: Final = list_key(QUEUES[0], PRIORITY_FIRST_OFFER)
_CONSUMERS_MIN: Final = 2
# From the first list that has any: of first offers of ordinary steps up to ARGV[1], but no more than an even share of
# those that wait, for others are about to ask; of all else one, for what is long, or came back, may be slow or deadly.
_POP: Final = """
local took = {}
for _, list in ipairs(KEYS) do
  local most = 1
  if list == ARGV[2] then
    most = math.min(tonumber(ARGV[1]), math.ceil(redis.call('LLEN', list) / tonumber(ARGV[3])))
  end
  for _ = 1, most do
    took[#took + 1] = redis.call('RPOP', list) or nil
  end
  if #took > 0 then return took end
end
return took
"""


class UnreadableMessage(ValueError):
    """A message that is no bell; ``raw`` is what it was."""

    def __init__(self, raw: bytes) -> None:
        super().__init__("a message is no bell")
        self.raw = raw


@dataclass(frozen=True, slots=True)
class DequeuedMessages:
    """What was taken off a list: bells, the oldest first, and messages that are none and that nobody can answer."""

    messages: Sequence[TaskMessage] = ()
    unreadable: Sequence[bytes] = ()


class Dequeuer:
    """Takes bells from the lists of some queues, in the order in which a worker reads them.

    ``takers`` is how many take from them in this worker; there may always be another worker.
    """

    def __init__(self, client: redis.Redis, queues: Sequence[str], consumers: int = _CONSUMERS_MIN) -> None:
        self._redis = client
        self._takers = max(consumers, _CONSUMERS_MIN)
        self._lists = [list_key(queue, priority) for priority in PRIORITY_STEPS for queue in queues]

    def dequeue(self, limit: int = 1) -> DequeuedMessages:
        """Take the oldest of the first list that has any, up to ``most`` where they are first offers, else one.

        Raises RedisError.
        """
        lists = self._lists
        messages: Any = self._redis.eval(_POP, len(lists), *lists, str(limit), _BATCHED_LIST, str(self._takers))
        bells, unreadable = [], []
        for message in messages:
            try:
                bells.append(decode_message(message))
            except UnreadableMessage as wrong:
                unreadable.append(wrong.raw)
        return DequeuedMessages(bells, unreadable)


def decode_message(raw: bytes) -> TaskMessage:
    """Answer the bell that a message of Celery's protocol bears; raises UnreadableMessage."""
    try:
        return message_from_args(*orjson.loads(base64.b64decode(orjson.loads(raw)["body"]))[0])
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, OSError) as wrong:
        raise UnreadableMessage(raw) from wrong
