"""Middleware of every request: request ids, access log, metrics, headers, CORS, and JSON encoding that never fails.

It is on the hot path of the poll: everything that can be computed beforehand is, and a log line below the configured
level is not built.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import flask
import orjson
import structlog
from flask.globals import app_ctx, request_ctx
from flask.json.provider import JSONProvider
from structlog.contextvars import bind_contextvars, clear_contextvars
from werkzeug.routing import RequestRedirect

from api.http import problems
from api.http.version_prefix import VERSION_PREFIX
from shared.clock import boottime_s
from shared.domain.access.caller import Caller
from shared.domain.access.safe_names import are_safe_names
from shared.ids import REQUEST_ID_PATTERN, new_request_id
from shared.settings import Settings
from shared.telemetry.lenient_json import encode_lenient
from shared.telemetry.request_metrics import observe_request

CORS_EXPOSED_HEADERS: Final = (
    "ETag, Location, Retry-After, Idempotency-Replayed, Preference-Applied, X-Request-ID, "
    "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, RateLimit, RateLimit-Policy"
)
CORS_ALLOWED_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, Prefer, X-Request-ID, traceparent"
)
INTERNAL_CALLER: Final = "bucket.caller"
"""The key in the environment of a request that the dashboard makes in this process: no client can send such a key."""
_UNMATCHED_ROUTE: Final = "none"  # label if no route matched: real paths would make labels without limit
_POLLED_PATH_PREFIXES: Final = ("/execution-logs", "/executions", "/consumers", "/health", "/ready", "/metrics", "/ui/")
_NO_CONTENT: Final = 204
_FIRST_ERROR_STATUS: Final = 400
REST_AFTER_S: Final = 1.0
REST_MAX_S: Final = 10.0
"""A rest ends after this time without a request too: an outage is logged, and no proxy closes an unused connection."""
LOOK_MAX_S: Final = 1.5
"""How long a request waits for the looks that end a rest; each of them has a shorter timeout of its own."""


@dataclass(frozen=True, slots=True)
class _Rest:
    """The rest of a background thread, which a request ends; it then waits until the thread has looked again."""

    is_over: threading.Event = field(default_factory=threading.Event)
    has_looked: threading.Event = field(default_factory=threading.Event)


class RequestActivity:
    """Counts the requests under way, so that an idle process costs little: its background threads rest meanwhile.

    The first request after a rest waits until each thread has looked at its store again. So no request is served by
    what was found before the rest, and the store's clock that it sees is as fresh as ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        self._idle_since = boottime_s()
        self._rests: dict[int, _Rest] = {}
        self.is_over = False

    def count_requests(self, wsgi_app: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``wsgi_app`` as an application whose requests are counted, held ones too."""

        def serve(environ: Any, start_response: Any) -> Any:
            self._begin_request()
            try:
                return wsgi_app(environ, start_response)
            finally:
                with self._lock:
                    self._under_way -= 1
                    self._idle_since = boottime_s()

        return serve

    def end(self) -> None:
        """End the background threads, each before its next look: for a process that goes on without the application."""
        with self._lock:
            self.is_over = True
            rests = tuple(self._rests.values())
        for rest in rests:
            rest.is_over.set()

    def pause(self, seconds: float, *, may_rest: bool = True) -> None:
        """Pause a background thread between two looks; if no requests come and it ``may_rest``, a longer one."""
        thread_id = threading.get_ident()
        with self._lock:
            ended_rest = self._rests.pop(thread_id, None)
        if ended_rest is not None:
            ended_rest.has_looked.set()
        time.sleep(seconds)
        with self._lock:
            if not may_rest or self.is_over or self._under_way or boottime_s() - self._idle_since < REST_AFTER_S:
                return
            rest = self._rests[thread_id] = _Rest()
        rest.is_over.wait(REST_MAX_S)

    def _begin_request(self) -> None:
        with self._lock:
            self._under_way += 1
            rests = tuple(self._rests.items())
        for _, rest in rests:
            rest.is_over.set()
        give_up_at = time.monotonic() + LOOK_MAX_S
        for thread_id, rest in rests:
            if not rest.has_looked.wait(max(0.0, give_up_at - time.monotonic())):
                with self._lock:  # a look that hangs must not hold up every request after this one
                    self._rests.pop(thread_id, None)


class OrjsonProvider(JSONProvider):
    """Flask's JSON provider on top of orjson; ``dumps`` and ``response`` never raise."""

    def dumps(self, obj: Any, **_: Any) -> str:
        """Return ``obj`` as JSON text."""
        return encode_lenient(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        """Parse the JSON text ``s``; request bodies go through api.http.request_body instead."""
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> flask.Response:
        """Return the JSON response, encoded to bytes directly."""
        return flask.Response(encode_lenient(self._prepare_response_obj(args, kwargs)), mimetype="application/json")


BeforeRoute = Callable[[flask.Request, Any], None]
"""What runs before the route of a request; it is given the request and flask's ``g``, and raises what refuses it."""
AfterRoute = Callable[[flask.Response, flask.Request, Any], None]


class RequestHooks:
    """What runs before and after each request, in one hook of flask's each.

    Each of their own would look up the request and its context again, which costs more than most of them.
    """

    def __init__(self, app: flask.Flask, settings: Settings) -> None:
        self._before: tuple[BeforeRoute, ...] = ()
        self._after: tuple[AfterRoute, ...] = (_make_after_route(logs_polls=settings.log_level == "DEBUG"),)
        app.before_request(self._run_before)
        app.after_request(self._run_after)

    def add(self, before: Sequence[BeforeRoute], after: Sequence[AfterRoute] = ()) -> None:
        """Run ``before`` after what runs before a request already, and ``after`` before what runs after it already."""
        self._before = (*self._before, *before)
        self._after = (*after, *self._after)

    def _run_before(self) -> flask.Response | None:
        request, g = request_ctx.request, app_ctx.g  # not through flask's proxies: each access costs 2 µs
        _begin(request, g)
        # A path with and one without a final slash are two paths: no redirect from one to the other.
        if isinstance(request.routing_exception, RequestRedirect):
            return problems.problem_response(problems.route_not_found())
        for hook in self._before:
            hook(request, g)
        return None

    def _run_after(self, response: flask.Response) -> flask.Response:
        request, g = request_ctx.request, app_ctx.g
        for hook in self._after:
            hook(response, request, g)
        return response


def register_middleware(app: flask.Flask, settings: Settings) -> RequestHooks:
    """Install the middleware in ``app``, and return what others can add to; call it before any route is added."""
    app.json = OrjsonProvider(app)
    hooks = RequestHooks(app, settings)
    if settings.cors_origins:
        _register_cors(app, frozenset(settings.cors_origins))
    return hooks


def _begin(request: flask.Request, g: Any) -> None:
    g.started_at_s = time.perf_counter()
    client_request_id = request.environ.get("HTTP_X_REQUEST_ID")
    request_id = (
        client_request_id if client_request_id and REQUEST_ID_PATTERN.fullmatch(client_request_id) else new_request_id()
    )
    g.request_id = request_id
    clear_contextvars()  # a request that did not get this far must not leave its id to this one
    bind_contextvars(request_id=request_id)


def _make_after_route(*, logs_polls: bool) -> AfterRoute:
    log = structlog.get_logger("api.access")

    def after_route(response: flask.Response, request: flask.Request, g: Any) -> None:
        response.headers.add("X-Request-ID", g.request_id)
        response.headers.add("X-Content-Type-Options", "nosniff")
        if "Cache-Control" not in response.headers:  # without it, a shared cache may keep a 200 for some minutes
            response.headers["Cache-Control"] = "no-store"
        seconds = time.perf_counter() - g.started_at_s
        rule = request.url_rule
        route = _UNMATCHED_ROUTE if rule is None else rule.rule
        observe_request(route, request.method, response.status_code, seconds)
        is_polled = INTERNAL_CALLER in request.environ or is_polled_route(route, request.method)
        is_quiet = response.status_code < _FIRST_ERROR_STATUS and is_polled
        if logs_polls or not is_quiet:
            (log.debug if is_quiet else log.info)(
                "request",
                method=request.method,
                route=route,
                **_path_fields(request, response),
                caller=_caller_subject(g),
                status=response.status_code,
                duration_ms=round(seconds * 1000, 2),
            )
        clear_contextvars()  # what this thread logs after the response belongs to no request

    return after_route


def _path_fields(request: flask.Request, response: flask.Response) -> dict[str, str]:
    """Return the path as it was sent, never the query, and the run that it names or that the reply has made.

    A path is left out if it matches no route, or if a part of it could be a key or a token.
    """
    values = request.view_args
    if values is None or (values and not are_safe_names(values.values())):
        return {}
    fields = {"path": request.path}
    _, is_run, made = response.headers.get("Location", "").rpartition("/execution-logs/")
    execution_id = values.get("execution_id") or (made if is_run else None)
    return fields | {"execution_id": execution_id} if execution_id else fields


def _caller_subject(g: Any) -> str | None:
    caller: Caller | None = g.get("caller")
    return None if caller is None else caller.subject


@lru_cache(maxsize=1024)
def is_polled_route(route: str, method: str) -> bool:
    """Return whether clients poll this route: its access log lines would bury all others."""
    path = route.removeprefix(VERSION_PREFIX)
    if method not in {"GET", "HEAD"}:
        return path == "/executions/poll"
    return path == "/" or path.startswith(_POLLED_PATH_PREFIXES)


def _register_cors(app: flask.Flask, origins: frozenset[str]) -> None:
    def preflight() -> flask.Response | None:
        request = flask.request
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not is_preflight or request.headers.get("Origin") not in origins or request.routing_exception is not None:
            return None
        response = app.make_default_options_response()
        response.status_code = _NO_CONTENT
        response.headers["Access-Control-Allow-Methods"] = response.headers["Allow"]
        response.headers["Access-Control-Allow-Headers"] = CORS_ALLOWED_HEADERS
        response.headers["Access-Control-Max-Age"] = "600"
        return response

    def add_cors_headers(response: flask.Response) -> flask.Response:
        response.vary.add("Origin")
        origin = flask.request.headers.get("Origin")
        if origin in origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = CORS_EXPOSED_HEADERS
        return response

    app.before_request(preflight)
    app.after_request(add_cors_headers)
