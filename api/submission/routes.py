"""POST /run-basket, /run-agent and /run-basket/batch: store runs, and return at once the address to poll."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flask
from flask import request

from api.auth.basket_allow_list import check_basket_allowed
from api.auth.current_caller import current_caller
from api.hints.poll_hints import ViewHints
from api.http.body_key_checks import check_policy
from api.http.request_body import Blueprint, LoadedBody, StrictParser
from api.limits.limited_request import charge_batch
from api.submission.acceptor import Acceptor
from api.submission.batch_acceptor import BatchAcceptor
from api.submission.held_submit import HeldSubmit
from api.submission.replies import accepted_response
from api.submission.run_builder import NewRun, RunBuilder
from api.submission.schemas import RunAgentSchema, RunBasketSchema, RunBatchSchema
from api.submission.submission import Submission, ignored_and_default_warnings, read_submission
from shared.errors import BucketError
from shared.store.server_clock import ServerClock


def blueprint(
    clock: ServerClock, builder: RunBuilder, acceptor: Acceptor, view_hints: ViewHints, held_submit: HeldSubmit
) -> Blueprint:
    """Return the routes that create one execution."""
    blp = Blueprint("submit", __name__, description="Run baskets and agents")

    @blp.route("/run-basket", methods=["POST"])
    @blp.arguments(RunBasketSchema())
    def run_basket(body: LoadedBody) -> flask.Response:
        """Run a basket, named or written inline."""
        body.warnings = [*body.warnings, *ignored_and_default_warnings(body.raw)]
        submission = read_submission(current_caller(), request, clock.now(), body)
        check_basket_allowed(submission.caller, body.get("basket_name"))
        return reply(submission, builder.basket_run(submission))

    @blp.route("/run-agent", methods=["POST"])
    @blp.arguments(RunAgentSchema())
    def run_agent(body: LoadedBody) -> flask.Response:
        """Run one agent, as a basket of one step."""
        submission = read_submission(current_caller(), request, clock.now(), body)
        check_basket_allowed(submission.caller, None, otherwise="the run of an agent alone")
        return reply(submission, builder.agent_run(submission))

    def reply(submission: Submission, new_run: NewRun | BucketError) -> flask.Response:
        accepted = acceptor.accept(submission, new_run)
        if submission.wait.wait_s:
            return held_submit.reply(accepted, submission)
        return accepted_response(accepted, view_hints.of_execution(accepted.run), submission)

    return blp


def batch_blueprint(clock: ServerClock, acceptor: BatchAcceptor) -> Blueprint:
    """Return the route that creates many executions.

    An item has the form of the body of POST /run-basket. The whole batch is refused only if no item can be read:
    invalid JSON, or a body that is too large.
    """
    blp = Blueprint("batch", __name__, description="Run many baskets in one request")
    blp.ARGUMENTS_PARSER = _BatchParser()

    @blp.route("/run-basket/batch", methods=["POST"])
    @blp.arguments(RunBatchSchema())
    def run_batch(body: LoadedBody) -> flask.Response:
        """Run up to 500 baskets; an invalid item is refused alone."""
        charge_batch(len(body["items"]))
        return acceptor.accept(read_submission(current_caller(), request, clock.now(), body))

    return blp


def _check_outside_items(body: Mapping[str, Any], raw: bytes) -> None:
    """Check the policy for all of a body except its items, which are checked one by one."""
    check_policy({key: value for key, value in body.items() if key != "items"}, raw)


class _BatchParser(StrictParser):
    POLICY = staticmethod(_check_outside_items)
