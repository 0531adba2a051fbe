"""POST /executions/actions: accepts a bulk action as an execution of one step, which a worker carries out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import flask
import orjson
from flask import request

from api.auth.basket_allow_list import check_basket_allowed
from api.auth.current_caller import current_caller
from api.auth.requested_scope import INTEGRATOR_PARAMETER, requested_owner
from api.hints.poll_hints import ViewHints
from api.http import query_params
from api.http.request_body import Blueprint, LoadedBody, read_body
from api.submission.acceptor import Acceptor
from api.submission.admission import Admission
from api.submission.replies import accepted_response
from api.submission.run_builder import NewRun
from api.submission.submission import Submission, read_submission
from shared.bootstrap import Services
from shared.domain.access.audit_event import definition_text
from shared.domain.bulk_action import BULK_ACTION, BULK_BASKET, parse_bulk_action
from shared.domain.execution import Execution
from shared.domain.lifecycle.transitions import start
from shared.domain.status import ExecutionStatus
from shared.errors import BucketError
from shared.ids import new_execution_id
from shared.sealing import input_place


def blueprint(services: Services, admission: Admission, acceptor: Acceptor, view_hints: ViewHints) -> Blueprint:
    """Return the route that accepts bulk actions."""
    blp = Blueprint("bulk_actions", __name__, description="Cancel, retry, erase or dismiss many executions")

    @blp.route("/executions/actions", methods=["POST"])
    def act_on_executions() -> flask.Response:
        """Cancel, retry, erase or dismiss all executions that match a filter."""
        query_params.check_known(INTEGRATOR_PARAMETER)
        body = read_body(request)
        parse_bulk_action(body)
        caller = current_caller()
        check_basket_allowed(caller, None, otherwise="a bulk action")
        submission = read_submission(caller, request, services.clock.now(), LoadedBody(body, body, ()))
        # An admin that names no integrator means its own: no action ever reaches the runs of several.
        submission = replace(submission, integrator=requested_owner(caller))
        accepted = acceptor.accept(submission, _build(services, admission, submission, body))
        return accepted_response(accepted, view_hints.of_execution(accepted.run), submission)

    return blp


def _build(
    services: Services, admission: Admission, submission: Submission, body: Mapping[str, Any]
) -> NewRun | BucketError:
    """Return the execution of a bulk action, or the error that refuses it."""
    try:
        admission.check()
        now = submission.received_at
        run = Execution(
            id=new_execution_id(now),
            integrator=submission.integrator,
            basket=BULK_BASKET,
            status=ExecutionStatus.QUEUED,
            steps={},
            created_at=now,
            request_id=submission.request_id,
            input=orjson.dumps(body),
            kind=BULK_ACTION,
            traceparent=submission.traceparent,
            idempotency=submission.idempotency,
            audit=None if submission.audit is None else {**submission.audit, "after": definition_text(body)},
        )
        if services.sealer.seals_payloads:
            run = replace(run, input=services.sealer.seal(run.input, input_place(run.id)))
        return NewRun(start(run, now, services.timings))
    except BucketError as error:
        return error
