"""Calls the routes of this very application in this process, for the person who is logged in.

So rights, limits, the audit and the words of a refusal are the API's own, and the dashboard can show nothing that the
API would not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode

import flask
import orjson
from flask import request
from structlog.contextvars import bind_contextvars
from werkzeug.test import EnvironBuilder, run_wsgi_app

from api.http.middleware import INTERNAL_CALLER
from shared.domain.access.caller import Caller

_PASSED_ON: Final = ("REMOTE_ADDR", "HTTP_X_FORWARDED_FOR")
Query = Sequence[tuple[str, str]]


class ApiRefused(Exception):
    """The API refused a request; ``problem`` is the body of its reply."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(problem.get("detail", "the request was refused"))
        self.status = status
        self.problem = problem

    @property
    def error_code(self) -> str:
        """The error code of the problem."""
        return str(self.problem.get("error_code", "internal"))


def get(caller: Caller, path: str, query: Query = ()) -> Any:
    """Return the parsed body of a GET; raises ApiRefused."""
    return send(caller, "GET", path, query)


def get_if_shown(caller: Caller, path: str, query: Query = ()) -> Any:
    """Return the parsed body of a GET; None if the caller may not see it, or if it is not there or not any more."""
    try:
        return get(caller, path, query)
    except ApiRefused as refused:
        if refused.status not in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
            raise
        return None


def get_if_there(caller: Caller, path: str, query: Query = ()) -> Any:
    """Return what :func:`get_if_shown` does; None also while a store is away, or if the caller has sent too much."""
    try:
        return get_if_shown(caller, path, query)
    except ApiRefused as refused:
        if refused.status not in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
            raise
        return None


def segment(text: str) -> str:
    """Return ``text`` as one segment of a path."""
    return quote(text, safe="")


def send(
    caller: Caller,
    method: str,
    path: str,
    query: Query = (),
    body: Mapping[str, Any] | None = None,
    **headers: str,
) -> Any:
    """Send a request as ``caller`` and return the parsed body of the reply; raises ApiRefused for 4xx and 5xx.

    ``headers`` are named as in WSGI: ``HTTP_IDEMPOTENCY_KEY``.
    """
    return _send(method, path, query, body, {**headers, INTERNAL_CALLER: caller})


def identify(key: str) -> Mapping[str, Any]:
    """Return what GET /me says of a key; raises ApiRefused. A wrong key is in the audit as any failed log-in is."""
    reply: Mapping[str, Any] = _send("GET", "/me", (), None, {"HTTP_AUTHORIZATION": f"Bearer {key}"})
    return reply


def _send(method: str, path: str, query: Query, body: Mapping[str, Any] | None, more: Mapping[str, Any]) -> Any:
    outer, request_id = request.environ, flask.g.request_id
    environ = EnvironBuilder(
        path=path,
        query_string=urlencode(query),
        method=method,
        data=None if body is None else orjson.dumps(body),
        content_type=None if body is None else "application/json",
    ).get_environ()
    environ |= {name: outer[name] for name in _PASSED_ON if name in outer}
    environ |= {"HTTP_X_REQUEST_ID": request_id, **more}
    with flask.current_app.app_context():  # a ``g`` of its own: the two requests must not see each other's caller
        chunks, status, _ = run_wsgi_app(flask.current_app.wsgi_app, environ, buffered=True)
    bind_contextvars(request_id=request_id)  # the inner request has cleared it
    content = b"".join(chunks)
    reply = orjson.loads(content) if content else None
    code = int(status.split()[0])
    if code >= HTTPStatus.BAD_REQUEST:
        raise ApiRefused(code, reply or {})
    return reply
