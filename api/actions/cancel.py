"""POST /executions/{id}/cancel: asks a run to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, repeat
from typing import Any, Final

import flask
import redis
import structlog
from flask import request

from api.auth.audit_note import record_object
from api.auth.current_caller import current_caller
from api.http.request_body import Blueprint, load_optional_body
from api.polling.execution_reader import ExecutionReader, check_execution_id
from api.polling.poll_handler import PollHandler
from shared.bootstrap import Services
from shared.domain.access.caller import Scope
from shared.domain.execution import CancelRequest, ExecutionRecord
from shared.domain.lifecycle.transitions import cancel
from shared.errors import ValidationFailed
from shared.live.signals import cancel_hints
from shared.store.executions.settle import settle

REASON_MAX: Final = 500


def blueprint(services: Services, reader: ExecutionReader, poller: PollHandler) -> Blueprint:
    """Return the route that cancels an execution."""
    blp = Blueprint("commands", __name__, description="Cancel executions")

    @blp.route("/executions/<execution_id>/cancel", methods=["POST"])
    def cancel_execution(execution_id: str) -> flask.Response:
        """Cancel a run; one that is over stays as it is."""
        check_execution_id(execution_id)
        body = load_optional_body(request, ("reason",))
        reason = _parse_reason(body)
        # If nothing was written, the run is done or its cancel was requested before. Perhaps only the primary has that
        # yet, so the read is causal.
        scope = current_caller().scope
        record = _request_cancel(services, scope, execution_id, reason)
        record = record or reader.read(scope, execution_id, causal=True)
        record_object(integrator=record.execution.integrator)
        if record.execution.is_done and record.execution.cancel is None:
            # The run was done before this request and stays as it is: only this reply shows the request.
            cancel_request = CancelRequest(services.clock.now(), reason)
            record = replace(record, execution=replace(record.execution, cancel=cancel_request))
        status = 200 if record.execution.is_done else 202
        return poller.respond_with_record(record, status, body.warnings)

    return blp


def _parse_reason(body: Mapping[str, Any]) -> str | None:
    reason = body.get("reason")
    if reason is not None and not (isinstance(reason, str) and len(reason) <= REASON_MAX):
        fault = {"pointer": "/reason", "message": f"must be a string of at most {REASON_MAX} characters"}
        raise ValidationFailed(f"reason {fault['message']}", details=[fault])
    return reason


def _request_cancel(services: Services, scope: Scope, execution_id: str, reason: str | None) -> ExecutionRecord | None:
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
