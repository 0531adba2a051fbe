"""DELETE /executions/{id}: erases the content of a finished run and keeps its record."""

from __future__ import annotations

import flask
import redis

from api.auth.audit_note import record_object
from api.auth.current_caller import current_caller
from api.http.request_body import Blueprint
from api.polling.execution_reader import ExecutionReader, check_execution_id
from api.polling.poll_handler import PollHandler
from shared.bootstrap import Services
from shared.domain.access.caller import Scope
from shared.domain.execution import ExecutionRecord
from shared.domain.lifecycle.erasure import erase
from shared.errors import OutcomeUnknown, StaleWrite, Unavailable
from shared.live.erased_runs import erase_copies


def blueprint(services: Services, reader: ExecutionReader, poller: PollHandler) -> Blueprint:
    """Return the route that erases the content of an execution."""
    blp = Blueprint("erasures", __name__, description="Erase the content of executions")

    @blp.route("/executions/<execution_id>", methods=["DELETE"])
    def erase_execution(execution_id: str) -> flask.Response:
        """Erase the content of a finished run; its record stays."""
        check_execution_id(execution_id)
        record = _erase(services, reader, current_caller().scope, execution_id)
        record_object(integrator=record.execution.integrator)
        return poller.respond_with_record(record, 200, ())

    return blp


def _erase(services: Services, reader: ExecutionReader, scope: Scope, execution_id: str) -> ExecutionRecord:
    """Erase a run in both stores, each part again if the run was erased before; return its record.

    So the same request completes what a store that went away has left. Raises NotFinal, Unavailable if nothing was
    changed, and OutcomeUnknown if not all was done.
    """
    # Not by the reader, which opens what is sealed: content whose key is lost can be erased too.
    run = services.store.load(scope, execution_id) or reader.read(scope, execution_id, causal=True).execution
    erased = erase(run, services.clock.now())
    try:
        record = None if erased is None else services.erasures.empty(run, erased)
    except StaleWrite:  # the same request came twice: a finished run is written by nothing else
        record = None
    if record is None:
        record = reader.read(scope, execution_id, causal=True)
        if record.execution.erased_at is None:
            raise Unavailable
    try:
        services.erasures.delete_beside(record.execution)
        erase_copies(services.redis, services.views, record.execution, reader.render(record))
    except (Unavailable, redis.RedisError) as error:  # not Unavailable: something was changed, and the audit says so
        raise OutcomeUnknown(
            f"execution {execution_id} is erased, but a store went away that may still have copies of its content; "
            "send the same request again"
        ) from error
    return record
