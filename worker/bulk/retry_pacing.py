"""Backpressure for retries in bulk: waits while as many steps wait for a worker as the API would accept.

It waits only as long as that helps. The action itself takes a slot of a worker: if it has the only one, nothing that
waits would ever be taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import redis

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.queue.message import PRIORITY_STEPS, list_key
from worker.context import AgentContext

LOOK_EVERY_S: Final = 0.5
STALLED_AFTER_S: Final = 10.0


def wait_for_room(services: Services, ctx: AgentContext, check_not_stopped: Callable[[], None]) -> None:
    """Wait while the backlog is as long as it may be and gets shorter, or Redis is away.

    If it has not become shorter for :data:`STALLED_AFTER_S`, return all the same. ``check_not_stopped`` raises to end
    the wait.
    """
    shortest, since_s = float("inf"), boottime_s()
    while True:
        backlog, now_s = _backlog(services), boottime_s()
        if backlog is None or backlog < shortest:
            shortest, since_s = shortest if backlog is None else backlog, now_s
        if backlog is not None and (backlog < services.settings.backlog_max or now_s - since_s > STALLED_AFTER_S):
            return
        check_not_stopped()
        ctx.cancel.wait(LOOK_EVERY_S)


def _backlog(services: Services) -> int | None:
    """Return how many messages wait; None if Redis is away."""
    pipe = services.redis.pipeline(transaction=False)
    for queue in QUEUE_NAMES:
        for priority in PRIORITY_STEPS:
            pipe.llen(list_key(queue, priority))
    try:
        lengths: list[int] = pipe.execute()
    except redis.RedisError:
        return None
    return sum(lengths)
