"""DELETE /executions/{id}: erases the content of a finished run and keeps its record."""

from __future__ import annotations

from functools import partial

import flask

from api.auth.audit_note import record_object
from api.auth.current_caller import current_caller
from api.http.request_body import Blueprint
from api.polling.execution_reader import ExecutionReader, check_execution_id
from api.polling.poll_handler import PollHandler
from shared.bootstrap import Services
from shared.domain.access.caller import Scope
from shared.domain.execution import ExecutionRecord
from shared.run_actions.erase_run import erase_run


def blueprint(services: Services, reader: ExecutionReader, poller: PollHandler) -> Blueprint:
    """Return the route that erases the content of an execution."""
    blp = Blueprint("erasures", __name__, description="Erase the content of executions")

    @blp.route("/executions/<execution_id>", methods=["DELETE"])
    def erase_execution(execution_id: str) -> flask.Response:
        """Erase the content of a finished run; its record stays."""
        check_execution_id(execution_id)
        record = _erase(services, reader, current_caller().scope, execution_id)
        record_object(integrator=record.execution.integrator)
        return poller.respond_with_view(reader.render(record), 200, ())

    return blp


def _erase(services: Services, reader: ExecutionReader, scope: Scope, execution_id: str) -> ExecutionRecord:
    # Not by the reader, which opens what is sealed: content whose key is lost can be erased too.
    run = services.store.load(scope, execution_id) or reader.read(scope, execution_id, causal=True).execution
    return erase_run(services, run, partial(reader.read, scope, execution_id, causal=True))
