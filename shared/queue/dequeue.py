"""Dequeues task messages directly from the Redis lists, as Celery's consumer would, for a worker that is free.

Returning to Celery's consumer costs more than two writes of the store. A message that is lost between here and its
claim is a lost message like any other: the reconciler offers the step again.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import redis

from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.domain.execution import PRIORITY_FIRST_OFFER
from shared.queue.message import PRIORITY_STEPS, TaskMessage, list_key, message_from_args

_BATCHED_LIST: Final = list_key(QUEUE_NAMES[0], PRIORITY_FIRST_OFFER)
_CONSUMERS_MIN: Final = 2
_HANDFUL: Final = 4
# Pops from the first list that is not empty. First offers in the default queue: up to ARGV[1], but at most an equal
# share of the waiting messages, because other children pop too, or a handful (ARGV[6]): to run these one after the
# other takes less than what their common reads and writes save. Any other list: one message, because a step of the long
# queue or one that is offered again may be slow or kill its worker. After each message comes the copy of its run, whose
# key is the run's id between ARGV[4] and ARGV[5]; it is empty if there is none.
_POP: Final = """
local found = {}
for _, list in ipairs(KEYS) do
  local limit = 1
  if list == ARGV[2] then
    local share = math.ceil(redis.call('LLEN', list) / tonumber(ARGV[3]))
    limit = math.min(tonumber(ARGV[1]), math.max(share, tonumber(ARGV[6])))
  end
  for _ = 1, limit do
    local message = redis.call('RPOP', list)
    if not message then break end
    local run = string.match(message, '"root_id":"(%d+_%x+)%.')
    found[#found + 1] = message
    found[#found + 1] = run and redis.call('GET', ARGV[4] .. run .. ARGV[5]) or ''
  end
  if #found > 0 then break end
end
return found
"""


class UnreadableMessage(ValueError):
    """A message that is not a task message."""


@dataclass(frozen=True, slots=True)
class DequeuedMessages:
    """The messages popped from a list: task messages, the oldest first, and the bytes of unreadable messages.

    ``copies`` are those that Redis has of the runs of these messages; each may be older than what is stored.
    """

    messages: Sequence[TaskMessage] = ()
    copies: Sequence[bytes] = ()
    unreadable: Sequence[bytes] = ()


class Dequeuer:
    """Dequeues task messages of some queues, in the order in which a worker reads their lists.

    ``consumers`` is the number of children of this worker; at least 2 are assumed, since there may be other workers.
    ``copy_affixes`` are what stands before and after a run's id in the key of its copy.
    """

    def __init__(
        self,
        client: redis.Redis,
        queues: Sequence[str],
        consumers: int = _CONSUMERS_MIN,
        copy_affixes: tuple[str, str] = ("", ""),
    ) -> None:
        self._redis = client
        self._copy_affixes = copy_affixes
        self._consumers = max(consumers, _CONSUMERS_MIN)
        self._list_keys = [list_key(queue, priority) for priority in PRIORITY_STEPS for queue in queues]

    def dequeue(self, limit: int = 1) -> DequeuedMessages:
        """Pop the oldest messages of the first list that is not empty: up to ``limit`` first offers, else one message.

        Raises RedisError.
        """
        list_keys = self._list_keys
        found: Any = self._redis.eval(
            _POP,
            len(list_keys),
            *list_keys,
            str(limit),
            _BATCHED_LIST,
            str(self._consumers),
            *self._copy_affixes,
            str(_HANDFUL),
        )
        messages, unreadable = [], []
        for raw in found[::2]:
            try:
                messages.append(decode_message(raw))
            except UnreadableMessage:
                unreadable.append(raw)
        return DequeuedMessages(messages, [copy for copy in found[1::2] if copy], unreadable)


def decode_message(raw: bytes) -> TaskMessage:
    """Decode a message of Celery's protocol into a task message; raises UnreadableMessage."""
    try:
        return message_from_args(*orjson.loads(base64.b64decode(orjson.loads(raw)["body"]))[0])
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, OSError) as error:
        raise UnreadableMessage("not a task message") from error
