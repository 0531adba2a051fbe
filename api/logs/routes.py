"""GET /logs and /agent-logs/{name}: the log lines of all executions, or of one agent."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import flask

from api.auth.current_caller import current_caller
from api.auth.requested_scope import INTEGRATOR_PARAMETER, requested_scope
from api.http import cursor_codec, query_params
from api.http.cache_control import private_no_cache
from api.http.cursor_codec import CursorKind
from api.http.request_body import Blueprint
from api.logs.log_line_pages import ArchivePosition, LogPageReader, LogPosition
from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.domain.access.caller import Caller
from shared.errors import CursorInvalid
from shared.live.log_stream import LogCursor, LogFilter

_PAGE_PARAMETERS: Final = ("level", "execution_id", "since", "limit", INTEGRATOR_PARAMETER)
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


def blueprint(catalogue: AgentCatalogue, pages: LogPageReader) -> Blueprint:
    """Return the routes of log lines."""
    blp = Blueprint("logs", __name__, description="Log lines of all executions")

    @blp.route("/logs")
    def logs() -> flask.Response:
        """List log lines, oldest first: the latest, or those after ``?since=`` (a ``next_since``)."""
        query_params.check_known("agent", *_PAGE_PARAMETERS)
        return _page_response(current_caller(), pages, query_params.text("agent"))

    @blp.route("/agent-logs/<name>")
    def agent_logs(name: str) -> flask.Response:
        """List the log lines of one agent."""
        query_params.check_known(*_PAGE_PARAMETERS)
        catalogue.check_known(name)
        return _page_response(current_caller(), pages, name)

    return blp


def _page_response(caller: Caller, pages: LogPageReader, agent: str | None) -> flask.Response:
    log_filter = LogFilter(requested_scope(caller), agent, _parse_level(), query_params.text("execution_id"))
    lines, next_position = pages.read_page(log_filter, _parse_since(), query_params.limit())
    next_since = None if next_position is None else cursor_codec.encode_cursor(CursorKind.LOG_LINES, str(next_position))
    return private_no_cache(flask.jsonify(logs=lines, count=len(lines), next_since=next_since))


def _parse_level() -> str | None:
    level = query_params.text("level")
    if level is not None and level not in LOG_LEVELS:
        query_params.raise_invalid("level", f"must be one of {', '.join(LOG_LEVELS)}")
    return level


def _parse_since() -> LogPosition:
    since = query_params.text("since")
    if since is None:
        return None
    with suppress(ValueError):
        text = cursor_codec.decode_cursor(CursorKind.LOG_LINES, since)
        position = LogCursor.parse(text) or ArchivePosition.parse(text)
        if position is not None:
            return position
    raise CursorInvalid(f"since={since[:64]!r} was not made by Bucket; pass a next_since back, or leave it out")
