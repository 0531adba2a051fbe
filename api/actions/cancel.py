"""POST /executions/{id}/cancel: asks a run to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import flask
from flask import request

from api.auth.audit_note import record_object
from api.auth.current_caller import current_caller
from api.http.request_body import Blueprint, load_optional_body
from api.polling.execution_reader import ExecutionReader, check_execution_id
from api.polling.poll_handler import PollHandler
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import CancelRequest
from shared.errors import ValidationFailed
from shared.run_actions.cancel_run import request_cancel

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
        as_of = boottime_s()
        record = request_cancel(services, scope, execution_id, reason)
        record = record or reader.read(scope, execution_id, causal=True)
        view = poller.store_view(record, as_of)  # it may have been written without being published
        record_object(integrator=record.execution.integrator)
        if record.execution.is_done and record.execution.cancel is None:
            # The run was done before this request and stays as it is: only this reply shows the request.
            cancel_request = CancelRequest(services.clock.now(), reason)
            view = reader.render(replace(record, execution=replace(record.execution, cancel=cancel_request)))
        status = 200 if record.execution.is_done else 202
        return poller.respond_with_view(view, status, body.warnings)

    return blp


def _parse_reason(body: Mapping[str, Any]) -> str | None:
    reason = body.get("reason")
    if reason is not None and not (isinstance(reason, str) and len(reason) <= REASON_MAX):
        fault = {"pointer": "/reason", "message": f"must be a string of at most {REASON_MAX} characters"}
        raise ValidationFailed(f"reason {fault['message']}", details=[fault])
    return reason
