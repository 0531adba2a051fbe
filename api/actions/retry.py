"""POST /executions/{id}/retry: a new execution in place of one that is over, which keeps what it had finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import flask
from flask import request

from api.background import Keeper
from api.http.body_policy import unknown_keys
from api.http.request_body import Blueprint, read_body
from api.polling.poll import Polls, check_id
from api.submission.acceptor import Acceptor, Asker, Made
from shared.bootstrap import Services
from shared.domain.lifecycle.rerun import Request, RetryFrom, again, check_retryable
from shared.domain.lifecycle.simulation import as_scripted
from shared.domain.status import StepStatus
from shared.errors import ValidationFailed
from shared.ids import new_execution_id

_KEYS: Final = ("from",)


class Retries:
    """Makes retries of runs, for whichever route asks for one."""

    def __init__(self, services: Services, keeper: Keeper) -> None:
        self._acceptor = Acceptor(services, keeper)
        self._polls = Polls(services, keeper)

    def retry(self, execution_id: str, start: RetryFrom, warnings: Sequence[str]) -> flask.Response:
        """Return a retry's answer, as a submit is answered; raises ExecutionNotFound and NotRetryable."""

        def make(asker: Asker) -> Made:
            original = self._polls.read(execution_id, newest=True)
            check_retryable(original.execution, start)  # before its outputs are fetched, which may be large
            if start is RetryFrom.FAILED:
                steps = original.execution.steps.values()
                done = [step.id for step in steps if step.status is StepStatus.COMPLETED]
                original = self._polls.read(execution_id, outputs=done, known=original.execution.rev)
            asked = Request(
                new_execution_id(asker.now), asker.now, asker.request_id, asker.traceparent, asker.idempotency
            )
            blank, outputs = again(original, asked, start)
            return as_scripted(blank), outputs

        return self._acceptor.accept(make, warnings).response


def blueprint(services: Services, keeper: Keeper) -> Blueprint:
    """Answer the route that retries."""
    blp = Blueprint("retries", __name__, description="Run again what failed")
    retries = Retries(services, keeper)

    @blp.route("/executions/<execution_id>/retry", methods=["POST"])
    def retry(execution_id: str) -> flask.Response:
        """Run again what failed or was cancelled, as a new execution that reuses the finished steps."""
        check_id(execution_id)
        body = read_body(request, optional=True)
        return retries.retry(execution_id, _start(body), unknown_keys(body, _KEYS))

    return blp


def _start(body: Mapping[str, Any]) -> RetryFrom:
    asked = body.get("from", RetryFrom.FAILED)
    if isinstance(asked, str) and asked in set(RetryFrom):
        return RetryFrom(asked)
    fault = {"pointer": "/from", "message": f"must be {' or '.join(RetryFrom)}"}
    raise ValidationFailed(f"from {fault['message']}", details=[fault])
