"""POST /executions/{id}/retry: reruns a finished execution as a new one that reuses the completed steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import flask
from flask import request

from api.auth.basket_allow_list import check_basket_allowed
from api.auth.current_caller import current_caller
from api.catalogue.availability import AgentAvailability
from api.hints.poll_hints import ViewHints
from api.http.request_body import Blueprint, load_optional_body
from api.polling.execution_reader import ExecutionReader, check_execution_id
from api.submission.acceptor import Acceptor
from api.submission.admission import Admission
from api.submission.replies import accepted_response
from api.submission.run_builder import NewRun
from api.submission.submission import Submission, read_submission
from shared.bootstrap import Services
from shared.domain.execution import NAMED_KINDS
from shared.domain.lifecycle.rerun import RetryFrom, RetryRequest, check_retryable
from shared.errors import BucketError, ValidationFailed
from shared.ids import new_execution_id
from shared.run_actions.build_rerun import build_rerun, reused_steps
from shared.store.server_clock import ServerClock


class RetryHandler:
    """Creates retries of runs: for this route, and for the requeue of dead letters."""

    def __init__(
        self,
        services: Services,
        reader: ExecutionReader,
        *,
        admission: Admission,
        availability: AgentAvailability,
        acceptor: Acceptor,
        view_hints: ViewHints,
    ) -> None:
        self._reader = reader
        self._services = services
        self._admission = admission
        self._availability = availability
        self._acceptor = acceptor
        self._view_hints = view_hints

    def retry(
        self,
        submission: Submission,
        execution_id: str,
        start_from: RetryFrom,
        *,
        is_requeue: bool = False,
        refusal: BucketError | None = None,
    ) -> flask.Response:
        """Accept a retry and return its reply, the same as for a submit; raises ExecutionNotFound and NotRetryable.

        The new run belongs to the integrator of the original, also if an admin retries it. Raises Forbidden if the key
        has a list of baskets without that of the original. ``is_requeue``: it sends a dead letter again. A ``refusal``
        is raised unless an earlier request with the same idempotency key was accepted.
        """
        caller = submission.caller
        submission = replace(submission, integrator=self._reader.integrator_of(caller.scope, execution_id))
        if caller.baskets is not None:
            original = self._reader.read(submission.integrator, execution_id, causal=True).execution
            is_named = original.kind in NAMED_KINDS
            check_basket_allowed(caller, original.basket.name if is_named else None, otherwise="a run without a basket")
        new_run = refusal or self._build(submission, execution_id, start_from, is_requeue=is_requeue)
        accepted = self._acceptor.accept(submission, new_run)
        return accepted_response(accepted, self._view_hints.of_execution(accepted.run), submission)

    def _build(
        self, submission: Submission, execution_id: str, start_from: RetryFrom, *, is_requeue: bool
    ) -> NewRun | BucketError:
        """Return the new run with the outputs that it begins with, or the error that refuses the retry."""
        try:
            self._admission.check()
            original = self._reader.read(submission.integrator, execution_id, causal=True)
            flask.g.retried_run = original.execution
            check_retryable(original.execution, start_from)  # before its outputs are read, which may be large
            steps = original.execution.steps.values()
            done = reused_steps(original.execution, start_from)
            self._availability.check(step.agent for step in steps if step.id not in done)
            if start_from is RetryFrom.FAILED:
                min_rev = original.execution.rev
                original = self._reader.read(submission.integrator, execution_id, outputs=done, min_rev=min_rev)
            now = submission.received_at
            request = RetryRequest(
                id=new_execution_id(now),
                created_at=now,
                request_id=submission.request_id,
                traceparent=submission.traceparent,
                idempotency=submission.idempotency,
                audit=submission.audit,
                is_requeue=is_requeue,
            )
            return NewRun(*build_rerun(self._services, original, request, start_from))
        except BucketError as error:
            return error


def blueprint(clock: ServerClock, retrier: RetryHandler) -> Blueprint:
    """Return the route that retries."""
    blp = Blueprint("retries", __name__, description="Rerun executions that failed or were cancelled")

    @blp.route("/executions/<execution_id>/retry", methods=["POST"])
    def retry(execution_id: str) -> flask.Response:
        """Rerun a failed or cancelled run as a new execution that reuses the finished steps."""
        check_execution_id(execution_id)
        body = load_optional_body(request, ("from",))
        start_from = _start_from(body)
        return retrier.retry(read_submission(current_caller(), request, clock.now(), body), execution_id, start_from)

    return blp


def _start_from(body: Mapping[str, Any]) -> RetryFrom:
    value = body.get("from", RetryFrom.FAILED)
    if isinstance(value, str) and value in set(RetryFrom):
        return RetryFrom(value)
    fault = {"pointer": "/from", "message": f"must be {' or '.join(RetryFrom)}"}
    raise ValidationFailed(f"from {fault['message']}", details=[fault])
