"""Makes the span of each request that writes (SERVER), and stores it as the parent of the run that it submits.

The span takes the place of the caller's ``traceparent``, so the run is stored with it, and its workers need not ask.
"""

from __future__ import annotations

from typing import Any, Final

import flask
from structlog.contextvars import bind_contextvars

from api.http.middleware import RequestHooks, is_polled_route
from shared.telemetry.tracing.tracer import RequestTrace, Tracer

_HEADER: Final = "HTTP_TRACEPARENT"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # a dashboard polls them too


def install(hooks: RequestHooks, tracer: Tracer | None) -> None:
    """Add the hooks that make spans; none if tracing is off."""
    if tracer is None:
        return

    def before(request: flask.Request, g: Any) -> None:
        rule = request.url_rule
        if rule is None or request.method in _READS or is_polled_route(rule.rule, request.method):
            return
        trace = g.trace = tracer.begin_request(request.environ.get(_HEADER))
        request.environ[_HEADER] = trace.context.traceparent
        bind_contextvars(**trace.context.log_fields)

    def after(response: flask.Response, request: flask.Request, g: Any) -> None:
        trace: RequestTrace | None = g.get("trace")
        if trace is None or request.url_rule is None:
            return
        execution_id = (request.view_args or {}).get("execution_id")
        _, is_run, made = response.headers.get("Location", "").rpartition("/execution-logs/")
        original = g.get("retried_run")
        links = () if original is None else (tracer.run_context(original),)
        trace.end(request.method, request.url_rule.rule, response.status_code, made if is_run else execution_id, links)

    hooks.add([before], [after])
