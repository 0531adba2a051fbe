"""The doorbell: a Celery message made from a template, so that ringing costs one LPUSH and no Celery.

A bell names a step that may be ready; all else stands in MongoDB. The message is what ``send_task`` makes for the
same call on Celery's Redis transport (task protocol 2, which is public and stable; a test compares the two).
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from shared.domain.execution import Step

RUN_STEP: Final = "bucket.run_step"
QUEUES: Final = ("default", "long")

FIRST: Final = 3
AGAIN: Final = 0
PRIORITY_STEPS: Final = (AGAIN, FIRST)
_SEPARATOR: Final = "\x06\x16"
_ORIGIN: Final = "bucket"


@dataclass(frozen=True, slots=True)
class Bell:
    """What a message bears: whose step it is, and the stamp of its offer."""

    integrator: str
    execution_id: str
    step: str
    stamp: datetime

    @property
    def args(self) -> list[Any]:
        """The task's arguments, as JSON takes them; the stamp in milliseconds since 1970."""
        return [self.integrator, self.execution_id, self.step, int(self.stamp.timestamp() * 1_000)]


def bell_of(integrator: str, execution_id: str, step: str, stamp_ms: int) -> Bell:
    """Answer the bell that bears these arguments; raises TypeError, ValueError or OverflowError where none does."""
    if not all(isinstance(name, str) for name in (integrator, execution_id, step)):
        raise TypeError("a bell's names are strings")
    return Bell(integrator, execution_id, step, datetime.fromtimestamp(stamp_ms / 1_000, UTC))


def priority_of(step: Step) -> int:
    """Answer the priority at which a step was last offered: rescues, retries and hand-backs go before first offers."""
    return FIRST if step.offers <= 1 and step.claims == 0 else AGAIN


def list_of(queue: str, priority: int) -> str:
    """Answer the Redis list that holds the messages of ``queue`` at ``priority``; 0 is read first."""
    return f"{queue}{_SEPARATOR}{priority}" if priority else queue


def lists_of(queue: str) -> tuple[str, ...]:
    """Answer all lists of a queue, in the order in which a worker reads them."""
    return tuple(list_of(queue, priority) for priority in PRIORITY_STEPS)


def message_of(bell: Bell, queue: str, priority: int) -> bytes:
    """Answer the bytes that go into the list: one message of Celery's task protocol 2."""
    task_id = secrets.token_hex(16)
    body = orjson.dumps([bell.args, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return orjson.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": RUN_STEP,
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


def ring(pipe: Any, bell: Bell, queue: str, priority: int = FIRST) -> None:
    """Append to a Redis pipeline what hands ``bell`` out."""
    pipe.lpush(list_of(queue, priority), message_of(bell, queue, priority))
