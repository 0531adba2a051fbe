"""Backpressure for retries in bulk: waits while as many steps wait for a worker as the API would accept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import redis

from shared.bootstrap import Services
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.queue.message import PRIORITY_STEPS, list_key
from worker.context import AgentContext

WAIT_S: Final = 0.5


def wait_for_room(services: Services, ctx: AgentContext, check_not_stopped: Callable[[], None]) -> None:
    """Wait while the backlog is as long as it may be, or Redis is away; ``check_not_stopped`` raises to end it."""
    while not _has_room(services):
        check_not_stopped()
        ctx.cancel.wait(WAIT_S)


def _has_room(services: Services) -> bool:
    pipe = services.redis.pipeline(transaction=False)
    for queue in QUEUE_NAMES:
        for priority in PRIORITY_STEPS:
            pipe.llen(list_key(queue, priority))
    try:
        lengths: list[int] = pipe.execute()
    except redis.RedisError:
        return False
    return sum(lengths) < services.settings.backlog_max
