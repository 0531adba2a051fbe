"""GET an execution: one Redis round trip whose bytes are sent unparsed, MongoDB where Redis has forgotten.

Never a guess: where Redis has no view and MongoDB does not answer it is 503, and 404 only where MongoDB said so.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

import flask
import orjson
import redis
import structlog
from flask import request
from werkzeug.datastructures import Headers

from api.body import Blueprint
from api.hints import Hints, hints_for
from api.keeper import Keeper
from api.portions import Portion, lies_beyond, portion_asked
from api.schemas import Polled
from shared.bootstrap import Services
from shared.domain.execution import NEWEST, PUBLIC, Page, Record
from shared.domain.status import StepStatus
from shared.errors import ExecutionExpired, ExecutionNotFound, InternalError, NotFound
from shared.ids import AGENT_NAME, EXECUTION_ID, second_of
from shared.live.render import Head, Rest, cut_rest, head_of, render, result_steps


def blueprint(services: Services, keeper: Keeper) -> Blueprint:
    """Answer the routes that are polled."""
    blp = Blueprint("polls", __name__, description="Poll executions until they are done")
    polls = Polls(services, keeper)

    @blp.route("/execution-logs/<execution_id>")
    @blp.response(200, Polled)
    def execution_logs(execution_id: str) -> flask.Response:
        """Poll an execution: where it stands, its result, its newest log lines."""
        return polls.poll(execution_id)

    @blp.route("/executions/<execution_id>")
    @blp.response(200, Polled)
    def execution(execution_id: str) -> flask.Response:
        """Poll an execution; the same as /execution-logs/{id}."""
        return polls.poll(execution_id)

    @blp.route("/executions/<execution_id>/outputs/<step>")
    @blp.response(200)
    def output(execution_id: str, step: str) -> flask.Response:
        """Get one step's output, whole."""
        return polls.output(execution_id, step)

    return blp


_NOT_MODIFIED: Final = 304


class Polls:
    """Answers polls from Redis first, then from MongoDB."""

    def __init__(self, services: Services, keeper: Keeper) -> None:
        self._services = services
        self._keeper = keeper

    def poll(self, execution_id: str) -> flask.Response:
        """Answer an execution as it stands, or 304 where the caller has it already."""
        check_id(execution_id)
        portion = portion_asked()
        view = self._view(execution_id)
        if not portion.is_all:
            return self._part(execution_id, view, portion)
        return self._answer(view, _NOT_MODIFIED if _is_known(head_of(view)) else 200)

    def shown(self, record: Record, status: int) -> flask.Response:
        """Answer a run as it has just been written, with the fields of a poll."""
        return self._answer(self._rendered(record, NEWEST), status)

    def output(self, execution_id: str, step: str) -> flask.Response:
        """Answer one step's output as its agent returned it."""
        check_id(execution_id)
        if not AGENT_NAME.fullmatch(step):
            raise NotFound(f"execution {execution_id} has no step {step[:64]!r}: no step can have this id")
        found = self._kept_output(execution_id, step)
        if found is None:
            record = self.read(execution_id, outputs=(step,))
            found = _output_in(record, step)
        headers = {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
        return flask.Response(found, 200, headers, mimetype="application/json")

    def read(self, execution_id: str, *, outputs: Iterable[str] = (), page: Page | None = None) -> Record:
        """Answer a run from MongoDB with those of its large outputs; raises what a caller is told of one not there."""
        record = self._services.store.read(PUBLIC, execution_id, outputs=outputs, page=page)
        if record is None:
            raise self._absent(execution_id)
        return record

    def _answer(self, view: bytes, status: int) -> flask.Response:
        head = head_of(view)
        view, rest = cut_rest(view)
        hints = self._hints(head, rest)
        if status == _NOT_MODIFIED:
            return _response(head, hints, None, status)
        return _response(head, hints, view + hints.tail, status)

    def _part(self, execution_id: str, view: bytes, portion: Portion) -> flask.Response:
        """Answer no more than was asked for; the lines that the view lacks come from MongoDB."""
        head, hints, shown = self._parsed(view)
        if _is_known(head) and not lies_beyond(shown, portion.page):
            return _response(head, hints, None, _NOT_MODIFIED)
        body = portion.of_view(shown)
        if body is None:
            record = self.read(execution_id, page=portion.page)
            head, hints, shown = self._parsed(self._rendered(record, portion.page))
            body = portion.of(shown)
        return _response(head, hints, body, 200)

    def _parsed(self, view: bytes) -> tuple[Head, Hints, dict[str, Any]]:
        head = head_of(view)
        view, rest = cut_rest(view)
        hints = self._hints(head, rest)
        return head, hints, orjson.loads(view + hints.tail)

    def _hints(self, head: Head, rest: Rest | None) -> Hints:
        return hints_for(head, rest, self._services.clock, self._keeper.pulse.last)

    def _view(self, execution_id: str) -> bytes:
        """The rendered poll, with the newest log lines."""
        view = self._kept_view(execution_id)
        if view is None:
            record = self.read(execution_id, page=NEWEST)
            view = self._rendered(record, NEWEST)
            self._fill(record, view)
        return view

    def _rendered(self, record: Record, page: Page) -> bytes:
        """The poll of ``record``; large outputs that its result needs are fetched."""
        missing = set(result_steps(record.execution)) - set(record.outputs)
        if missing:
            record = self.read(record.execution.id, outputs=missing, page=page)
        view = render(record, page)
        if view is None:
            raise InternalError(f"an output of {record.execution.id} is not where it was kept")
        return view

    def _kept_view(self, execution_id: str) -> bytes | None:
        if not self._keeper.pulse.last.connected:
            return None  # known to be away: waiting for it would make each poll slow
        try:
            return self._services.views.get(execution_id)
        except redis.RedisError as away:
            structlog.get_logger().warning("Redis did not answer a poll", reason=str(away))
            return None

    def _kept_output(self, execution_id: str, step: str) -> bytes | None:
        if not self._keeper.pulse.last.connected:
            return None
        try:
            return self._services.views.get_output(execution_id, step)
        except redis.RedisError as away:
            structlog.get_logger().warning("Redis did not answer", reason=str(away))
            return None

    def _fill(self, record: Record, view: bytes) -> None:
        if not self._keeper.pulse.last.connected:
            return
        try:
            self._services.views.fill(record.execution.id, view, final=record.execution.done)
        except redis.RedisError as away:
            structlog.get_logger().warning("Redis did not take a view", reason=str(away))

    def _absent(self, execution_id: str) -> NotFound | ExecutionExpired:
        days = self._services.settings.retention_days
        now = self._services.clock.glance()
        if days is not None and now is not None and now - second_of(execution_id) > timedelta(days=days):
            return ExecutionExpired(f"execution {execution_id} is older than the {days} days that runs are kept")
        return ExecutionNotFound(f"execution {execution_id!r} was not found")


def check_id(execution_id: str) -> None:
    """Raise ExecutionNotFound for what cannot be an id: it never reaches a store."""
    if execution_id == "None":
        raise ExecutionNotFound(
            "execution 'None' was not found: the submit was refused and gave no id; look at its status and detail"
        )
    if not EXECUTION_ID.fullmatch(execution_id):
        raise ExecutionNotFound(f"execution {execution_id[:64]!r} was not found: this is no id that Bucket made")


def _is_known(head: Head) -> bool:
    """True where the caller's If-None-Match names this revision; weakly compared, as GET is."""
    told = request.environ.get("HTTP_IF_NONE_MATCH")
    if not told:
        return False
    return told == _etag(head) or request.if_none_match.contains_weak(f"{head.execution_id}.{head.rev}")


def _etag(head: Head) -> str:
    return f'W/"{head.execution_id}.{head.rev}"'


class _Reply(flask.Response):
    """A reply whose headers are whole as they are given: werkzeug need not look through them once more."""

    default_mimetype = None

    def get_wsgi_headers(self, environ: Any) -> Headers:  # noqa: ARG002  the signature is werkzeug's
        return self.headers


def _response(head: Head, hints: Hints, body: bytes | None, status: int) -> flask.Response:
    headers = [
        ("ETag", _etag(head)),
        ("Cache-Control", "private, no-cache"),
        ("Vary", "Accept-Encoding"),
    ]
    if body is not None:
        headers.append(("Content-Type", "application/json"))
    if hints.retry_after_s is not None:
        headers.append(("Retry-After", str(hints.retry_after_s)))
    return _Reply(body, status, headers)


def _output_in(record: Record, step: str) -> bytes:
    found = record.execution.steps.get(step)
    if found is None:
        raise NotFound(f"execution {record.execution.id} has no step {step[:64]!r}")
    if found.status is not StepStatus.COMPLETED or step not in record.outputs:
        raise NotFound(f"step {step} has no output: it is {found.status}")
    return record.outputs[step]
