"""What a caller may ask of a run that is there: to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import flask
import redis
import structlog
from flask import request

from api.body import Blueprint, read_body
from api.keeper import Keeper
from api.polls import Polls, check_id
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC, Record
from shared.domain.life import cancel
from shared.errors import ExecutionNotFound, ValidationFailed
from shared.live import cancels
from shared.store.settle import settle

REASON_MAX: Final = 500


def blueprint(services: Services, keeper: Keeper) -> Blueprint:
    """Answer the routes that act on executions."""
    blp = Blueprint("commands", __name__, description="Stop executions")
    polls = Polls(services, keeper)

    @blp.route("/executions/<execution_id>/cancel", methods=["POST"])
    def cancel_execution(execution_id: str) -> flask.Response:
        """Ask a run to stop; one that is over stays as it is."""
        check_id(execution_id)
        reason = _reason(read_body(request, optional=True))
        record = _cancelled(services, execution_id, reason) or polls.read(execution_id)
        return polls.shown(record, 200 if record.execution.done else 202)

    return blp


def _reason(body: Mapping[str, Any]) -> str | None:
    reason = body.get("reason")
    if reason is not None and not (isinstance(reason, str) and len(reason) <= REASON_MAX):
        fault = {"pointer": "/reason", "message": f"must be a string of at most {REASON_MAX} characters"}
        raise ValidationFailed(f"reason {fault['message']}", details=[fault])
    return reason


def _cancelled(services: Services, execution_id: str, reason: str | None) -> Record | None:
    """Write that a run is to stop, and leave word for its workers; None where it was over or asked before.

    An answer that is lost is asked for once more and no longer: the caller may, and it makes no difference.
    """
    execution = services.store.load(PUBLIC, execution_id)
    if execution is None:
        raise ExecutionNotFound(f"execution {execution_id!r} was not found")
    settled = settle(
        services.store,
        execution,
        lambda seen: cancel(seen, services.clock.now(), reason),
        give_up=_after(1),
    )
    if settled is None:
        return None
    told = settled.record.lines_total - len(settled.advance.events)
    services.publisher.advanced(settled.record, settled.advance, as_of=settled.as_of, told=told)
    if not settled.record.execution.done:
        try:
            cancels.hint(services.redis, execution_id)
        except redis.RedisError as away:
            structlog.get_logger().info("the workers learn of a cancel by their heartbeat", reason=str(away))
    return settled.record


def _after(tries: int) -> Callable[[], bool]:
    """Answer something that says to give up once it was asked ``tries`` times."""
    left = [tries]

    def give_up() -> bool:
        left[0] -= 1
        return left[0] < 0

    return give_up
