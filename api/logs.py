"""The log lines of all executions: from Redis for the last day, from MongoDB where Redis has forgotten."""

from __future__ import annotations

from typing import Any, Final

import flask
import orjson
import redis
import structlog
from flask import request

from api import paths
from api.body import Blueprint
from api.keeper import Keeper
from api.schemas import Lines
from shared.bootstrap import Services
from shared.errors import CursorInvalid, ValidationFailed
from shared.live import lines
from shared.live.lines import Cursor, Wanted
from shared.live.render import line_shown

_EXECUTIONS_SEARCHED: Final = 1_000
_LEVELS: Final = ("debug", "info", "warning", "error")

_Found = list[tuple[Cursor, dict[str, Any]]]


def blueprint(services: Services, keeper: Keeper) -> Blueprint:
    """Answer the routes of log lines."""
    blp = Blueprint("logs", __name__, description="Log lines of all executions")

    @blp.route("/logs")
    @blp.response(200, Lines)
    def logs() -> flask.Response:
        """List log lines, oldest first: the latest, or those after ``?since=`` (a ``next_since``)."""
        return _answer(services, keeper, request.args.get("agent"))

    @blp.route("/agent-logs/<name>")
    @blp.response(200, Lines)
    def agent_logs(name: str) -> flask.Response:
        """List the log lines of one agent."""
        return _answer(services, keeper, services.catalogue.agent(name).name)

    return blp


def _answer(services: Services, keeper: Keeper, agent: str | None) -> flask.Response:
    wanted = Wanted(agent, _level(), request.args.get("execution_id"))
    since = _since()
    limit = paths.limit()
    found = _from_redis(services, keeper, wanted, since, limit)
    if found is None:
        found = _from_mongodb(services, wanted, since, limit)
    last = found[-1][0] if found else since
    response = flask.jsonify(
        logs=[line for _, line in found], count=len(found), next_since=None if last is None else str(last)
    )
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _from_redis(services: Services, keeper: Keeper, wanted: Wanted, since: Cursor | None, limit: int) -> _Found | None:
    """The lines as the stream has them; None where it does not reach back far enough to tell."""
    if not keeper.pulse.last.connected:
        return None
    try:
        if since is not None:
            reaches = lines.oldest_ms(services.redis)
            return lines.after(services.redis, since, wanted, limit) if reaches and since.ms >= reaches else None
        found = lines.latest(services.redis, wanted, limit)
    except redis.RedisError as away:
        structlog.get_logger().warning("Redis did not give log lines", reason=str(away))
        return None
    return found if len(found) == limit else None


def _from_mongodb(services: Services, wanted: Wanted, since: Cursor | None, limit: int) -> _Found:
    found: _Found = []
    for record in services.store.newest(_EXECUTIONS_SEARCHED):
        for seq, event in enumerate(record.events, record.first_seq):
            line = orjson.loads(line_shown(record.execution.id, seq, event))
            cursor = Cursor(int(event.at.timestamp() * 1_000), 0, 0)
            if wanted.admits(line) and (since is None or cursor.ms >= since.ms):
                found.append((cursor, line))
    found.sort(key=lambda pair: pair[0].ms)
    return found[-limit:] if since is None else found[:limit]


def _level() -> str | None:
    level = request.args.get("level")
    if level is not None and level not in _LEVELS:
        fault = {"parameter": "level", "message": f"must be one of {', '.join(_LEVELS)}"}
        raise ValidationFailed(f"level {fault['message']}", details=[fault])
    return level


def _since() -> Cursor | None:
    text = request.args.get("since")
    if text is None:
        return None
    cursor = Cursor.parse(text)
    if cursor is None:
        raise CursorInvalid(f"since={text[:64]!r} was not made by Bucket; pass a next_since back, or leave it out")
    return cursor
