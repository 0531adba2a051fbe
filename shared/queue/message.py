"""Task message: a Celery message made from a template, so that enqueueing is one LPUSH.

It is a thin message: it carries only the ids of a step that may be ready, and the worker loads all other data, from the
copy of a run that was just accepted or from MongoDB (claim check pattern). Its task id begins with the run's id. It
equals the message that ``send_task``
makes for the same call on Celery's Redis transport (task protocol 2, which is public and stable; a test compares the
two), but needs no Celery in the process that sends it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from shared.domain.execution import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER
from shared.ids import new_token

RUN_STEP_TASK: Final = "bucket.run_step"

PRIORITY_STEPS: Final = (PRIORITY_REOFFER, PRIORITY_FIRST_OFFER)
_SEPARATOR: Final = "\x06\x16"
_ORIGIN: Final = "bucket"


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """The content of a task message: the ids of the step, and the time of its offer."""

    integrator: str
    execution_id: str
    step: str
    offered_at: datetime

    @property
    def args(self) -> list[Any]:
        """The task's arguments for JSON; the time of the offer in milliseconds since 1970."""
        return [self.integrator, self.execution_id, self.step, int(self.offered_at.timestamp() * 1_000)]


def message_from_args(integrator: str, execution_id: str, step: str, offered_at_ms: int) -> TaskMessage:
    """Build a task message from a task's arguments; raises TypeError, ValueError or OverflowError for invalid ones."""
    if not all(isinstance(name, str) for name in (integrator, execution_id, step)):
        raise TypeError("the ids in a task message must be strings")
    return TaskMessage(integrator, execution_id, step, datetime.fromtimestamp(offered_at_ms / 1_000, UTC))


def list_key(queue: str, priority: int) -> str:
    """Return the key of the Redis list with the messages of ``queue`` at ``priority``; 0 is read first."""
    return f"{queue}{_SEPARATOR}{priority}" if priority else queue


def list_keys(queue: str) -> tuple[str, ...]:
    """Return the keys of all lists of a queue, in the order in which a worker reads them."""
    return tuple(list_key(queue, priority) for priority in PRIORITY_STEPS)


def encode_message(message: TaskMessage, queue: str, priority: int) -> bytes:
    """Encode a task message for its Redis list: one message of Celery's task protocol 2."""
    task_id = f"{message.execution_id}.{new_token()}"  # `shared/queue/dequeue.py` finds the run by it
    body = orjson.dumps([message.args, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return orjson.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": RUN_STEP_TASK,
                "id": task_id,
                "shadow": None,
                "eta": None,
                "expires": None,
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": task_id,
                "parent_id": None,
                "argsrepr": "",
                "kwargsrepr": "",
                "origin": _ORIGIN,
                "ignore_result": True,
                "replaced_task_nesting": 0,
                "stamped_headers": None,
                "stamps": {},
            },
            "properties": {
                "correlation_id": task_id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": priority,
                "body_encoding": "base64",
                "delivery_tag": task_id,
            },
        }
    )


def enqueue(pipe: Any, message: TaskMessage, queue: str, priority: int = PRIORITY_FIRST_OFFER) -> None:
    """Append to a Redis pipeline the command that enqueues ``message``."""
    pipe.lpush(list_key(queue, priority), encode_message(message, queue, priority))
