"""POST /run-basket, /run-agent and /run-basket/batch: store runs, and return at once the address to poll."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import flask
from flask import request

from api.http.body_policy import check_policy, unknown_key_warnings
from api.http.request_body import Blueprint, StrictParser, read_body
from api.submission.acceptor import Acceptor
from api.submission.batch_acceptor import BatchAcceptor
from api.submission.held_submit import HeldSubmit
from api.submission.run_builder import RunBuilder, submit_warnings
from api.submission.schemas import RUN_AGENT_KEYS, RunAgentSchema, RunBasketSchema, RunBatchSchema
from api.submission.submission import read_submission
from shared.store.server_clock import ServerClock

_HEADER_KEY_HINTS: Final = {"idempotency_key": "send it as the header Idempotency-Key, or a repeat runs twice"}


def blueprint(clock: ServerClock, builder: RunBuilder, acceptor: Acceptor, held_submit: HeldSubmit) -> Blueprint:
    """Return the routes that create one execution."""
    blp = Blueprint("submit", __name__, description="Run baskets and agents")

    @blp.route("/run-basket", methods=["POST"])
    @blp.arguments(RunBasketSchema())
    def run_basket(body: Mapping[str, Any]) -> flask.Response:
        """Run a basket, named or written inline."""
        warnings = submit_warnings(read_body(request), body, key_hints=_HEADER_KEY_HINTS)
        submission = read_submission(request, clock.now(), body, warnings)
        return held_submit.reply(acceptor.accept(submission, builder.basket_run(submission)), submission)

    @blp.route("/run-agent", methods=["POST"])
    @blp.arguments(RunAgentSchema())
    def run_agent(body: Mapping[str, Any]) -> flask.Response:
        """Run one agent, as a basket of one step."""
        warnings = unknown_key_warnings(read_body(request), RUN_AGENT_KEYS, key_hints=_HEADER_KEY_HINTS)
        submission = read_submission(request, clock.now(), body, warnings)
        return held_submit.reply(acceptor.accept(submission, builder.agent_run(submission)), submission)

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
    def run_batch(body: Mapping[str, Any]) -> flask.Response:
        """Run up to 500 baskets; a bad item fails alone."""
        warnings = unknown_key_warnings(read_body(request), ("items",))
        return acceptor.accept(read_submission(request, clock.now(), body, warnings))

    return blp


def _check_outside_items(body: Mapping[str, Any], raw: bytes) -> None:
    """Check the policy for all of a body except its items, which are checked one by one."""
    check_policy({key: value for key, value in body.items() if key != "items"}, raw)


class _BatchParser(StrictParser):
    POLICY = staticmethod(_check_outside_items)
