"""Cancels a run: writes the request, publishes it, and sets the cancel hint for the workers."""

from __future__ import annotations

from itertools import chain, repeat

import redis
import structlog

from shared.bootstrap import Services
from shared.domain.access.caller import Scope
from shared.domain.execution import ExecutionRecord
from shared.domain.lifecycle.transitions import cancel
from shared.live.signals import cancel_hints
from shared.store.executions.settle import settle


def request_cancel(services: Services, scope: Scope, execution_id: str, reason: str | None) -> ExecutionRecord | None:
    """Write the cancel request of a run, and set the cancel hint for its workers.

    Returns None if the run is done or missing, or if its cancel was requested before. If MongoDB's reply is lost, the
    write is tried only once more: the caller can repeat the request, which is idempotent.
    """
    execution = services.store.load(scope, execution_id)
    if execution is None:
        return None
    settled = settle(
        services.store,
        execution,
        lambda snapshot: cancel(snapshot, services.clock.now(), reason),
        give_up=chain([False], repeat(True)).__next__,  # from its second call on
    )
    if settled is None:
        return None
    published_seq = settled.record.lines_total - len(settled.decision.events)
    services.publisher.publish_decision(
        settled.record, settled.decision, as_of=settled.save_started_at_s, published_seq=published_seq
    )
    if not settled.record.execution.is_done:
        try:
            cancel_hints.set_cancel_hint(services.redis, execution_id)
        except redis.RedisError as error:
            structlog.get_logger().info(
                "no cancel hint was set; the workers see the cancel at their next heartbeat", reason=str(error)
            )
    return settled.record
