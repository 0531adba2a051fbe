"""GET /execution-logs/{id}, GET /executions and POST /executions/poll: poll one execution, a list or many."""

from __future__ import annotations

import flask

from api.auth.current_caller import current_caller
from api.http.request_body import Blueprint, LoadedBody
from api.polling.list_executions import respond_with_list
from api.polling.poll_handler import PollHandler
from api.polling.poll_many import PollManyHandler
from api.polling.schemas import PollManySchema
from api.rows.row_fields import RowRenderer
from shared.bootstrap import Services


def blueprint(poller: PollHandler) -> Blueprint:
    """Return the routes that poll one execution."""
    blp = Blueprint("polls", __name__, description="Poll executions until they are done")

    @blp.route("/execution-logs/<execution_id>")
    def execution_logs(execution_id: str) -> flask.Response:
        """Poll an execution: its status, its result and its newest log lines."""
        return poller.poll(current_caller(), execution_id)

    @blp.route("/executions/<execution_id>")
    def execution(execution_id: str) -> flask.Response:
        """Poll an execution; the same as /execution-logs/{id}."""
        return poller.poll(current_caller(), execution_id)

    @blp.route("/executions/<execution_id>/result")
    def result(execution_id: str) -> flask.Response:
        """Get the result alone: 202 until the run is done, then 200, or 409 if it has none."""
        return poller.respond_with_result(current_caller().scope, execution_id)

    @blp.route("/executions/<execution_id>/input")
    def execution_input(execution_id: str) -> flask.Response:
        """Get the input that a run was accepted with, or took from the sample."""
        return poller.respond_with_input(current_caller().scope, execution_id)

    @blp.route("/executions/<execution_id>/outputs/<step>")
    def output(execution_id: str, step: str) -> flask.Response:
        """Get the whole output of one step."""
        return poller.respond_with_output(current_caller().scope, execution_id, step)

    return blp


def many_blueprint(many: PollManyHandler) -> Blueprint:
    """Return the route that polls many runs at once."""
    blp = Blueprint("poll_many", __name__, description="Poll many executions in one request")

    @blp.route("/executions/poll", methods=["POST"])
    @blp.arguments(PollManySchema())
    def poll_many(body: LoadedBody) -> flask.Response:
        """Poll up to 500 executions: those whose ``rev`` differs from yours, and the number of the others."""
        warnings = [*body.warnings, *body["items"].warnings]
        return many.respond(current_caller(), body["items"], is_full=body["view"] == "full", warnings=warnings)

    return blp


def list_blueprint(services: Services, row_renderer: RowRenderer) -> Blueprint:
    """Return the route that lists executions."""
    blp = Blueprint("lists", __name__, description="Find executions")

    @blp.route("/executions")
    def executions() -> flask.Response:
        """List executions, the newest first; ``?cursor=`` is a ``next_cursor`` of the same list."""
        return respond_with_list(current_caller(), services, row_renderer)

    return blp
