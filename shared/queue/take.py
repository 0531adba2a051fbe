"""Takes the next bell straight from the lists, as Celery's consumer would: for a worker that is free already.

Going back through Celery's consumer costs more than two writes of the store. A bell that is lost between here and its
claim is one of the lost messages that the reconciler offers again.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import orjson
import redis

from shared.queue.bell import PRIORITY_STEPS, Bell, bell_of, list_of

_POP_FIRST: Final = """
for _, list in ipairs(KEYS) do
  local message = redis.call('RPOP', list)
  if message then return message end
end
return false
"""


class UnreadableMessage(ValueError):
    """A message that is no bell; ``raw`` is what it was."""

    def __init__(self, raw: bytes) -> None:
        super().__init__("a message is no bell")
        self.raw = raw


class Taker:
    """Takes bells from the lists of some queues, in the order in which a worker reads them."""

    def __init__(self, client: redis.Redis, queues: Sequence[str]) -> None:
        self._redis = client
        self._lists = [list_of(queue, priority) for priority in PRIORITY_STEPS for queue in queues]

    def take(self) -> Bell | None:
        """Answer the oldest bell of the first list that has one, None where none waits.

        Raises RedisError, and UnreadableMessage for one that is taken off the list and can be answered by nobody.
        """
        raw: Any = self._redis.eval(_POP_FIRST, len(self._lists), *self._lists)
        return None if raw is None else read_bell(raw)


def read_bell(raw: bytes) -> Bell:
    """Answer the bell that a message of Celery's protocol bears; raises UnreadableMessage."""
    try:
        return bell_of(*orjson.loads(base64.b64decode(orjson.loads(raw)["body"]))[0])
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, OSError) as wrong:
        raise UnreadableMessage(raw) from wrong
