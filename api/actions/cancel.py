"""What a caller may ask of a run that is there: to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain, repeat
from typing import Any, Final

import flask
import redis
import structlog
from flask import request

from api.http.body_policy import unknown_key_warnings
from api.http.request_body import Blueprint, read_body
from api.polling.execution_reader import ExecutionReader, check_execution_id
from api.polling.poller import PollHandler
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC_INTEGRATOR, CancelRequest, ExecutionRecord
from shared.domain.lifecycle.transitions import cancel
from shared.errors import ValidationFailed
from shared.live import cancel_hints
from shared.store.executions.settle import settle

REASON_MAX: Final = 500
_BODY_KEYS: Final = ("reason",)


def blueprint(services: Services, reader: ExecutionReader, poller: PollHandler) -> Blueprint:
    """Answer the routes that act on executions."""
    blp = Blueprint("commands", __name__, description="Stop executions")

    @blp.route("/executions/<execution_id>/cancel", methods=["POST"])
    def cancel_execution(execution_id: str) -> flask.Response:
        """Ask a run to stop; one that is over stays as it is."""
        check_execution_id(execution_id)
        body = read_body(request, optional=True)
        reason = _parse_reason(body)
        # Nothing was written for what the primary alone may have yet: that it is over, or that another has asked.
        record = _request_cancel(services, execution_id, reason) or reader.read(execution_id, causal=True)
        if record.execution.is_done and record.execution.cancel is None:
            # It was over before anybody asked, and stays as it is: told here alone.
            asked = CancelRequest(services.clock.now(), reason)
            record = replace(record, execution=replace(record.execution, cancel=asked))
        return poller.respond_with_record(
            record, 200 if record.execution.is_done else 202, unknown_key_warnings(body, _BODY_KEYS)
        )

    return blp


def _parse_reason(body: Mapping[str, Any]) -> str | None:
    reason = body.get("reason")
    if reason is not None and not (isinstance(reason, str) and len(reason) <= REASON_MAX):
        fault = {"pointer": "/reason", "message": f"must be a string of at most {REASON_MAX} characters"}
        raise ValidationFailed(f"reason {fault['message']}", details=[fault])
    return reason


def _request_cancel(services: Services, execution_id: str, reason: str | None) -> ExecutionRecord | None:
    """Write that a run is to stop, and leave word for its workers; None where it is over, asked before or not there.

    An answer that is lost is asked for once more and no longer: the caller may, and it makes no difference.
    """
    execution = services.store.load(PUBLIC_INTEGRATOR, execution_id)
    if execution is None:
        return None
    settled = settle(
        services.store,
        execution,
        lambda seen: cancel(seen, services.clock.now(), reason),
        give_up=_give_up_on_second_call(),
    )
    if settled is None:
        return None
    told = settled.record.lines_total - len(settled.decision.events)
    services.publisher.publish_decision(settled.record, settled.decision, as_of=settled.as_of, published_seq=told)
    if not settled.record.execution.is_done:
        try:
            cancel_hints.set_cancel_hint(services.redis, execution_id)
        except redis.RedisError as away:
            structlog.get_logger().info("the workers learn of a cancel by their heartbeat", reason=str(away))
    return settled.record


def _give_up_on_second_call() -> Callable[[], bool]:
    """Answer something that says to give up from the second time on that it is asked."""
    answers = chain([False], repeat(True))
    return lambda: next(answers)
