"""Renders the pages of the dashboard: the templates' filters, the headers of each page, and its revision."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

import flask
from flask import request

from api.dashboard.run_form import to_json
from api.dashboard.sessions import Session, Sessions
from api.dashboard.timeline import format_duration
from api.http.version_prefix import request_prefix
from shared.domain.access.caller import Permission

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
POLL_MS: Final = 3_000
NAVIGATION: Final = (
    ("/", "Overview", Permission.READ),
    ("/ui/runs", "Runs", Permission.READ),
    ("/ui/baskets", "Baskets", Permission.READ),
    ("/ui/workers", "Workers", Permission.OPERATE),
    ("/ui/dead-letters", "Dead letters", Permission.OPERATE),
    ("/ui/consumers", "Consumers", Permission.READ),
)
"""Path, name, and what the caller needs to be shown it."""


def add_filters(blueprint: flask.Blueprint) -> None:
    """Add what templates need to ``blueprint``."""
    blueprint.add_app_template_filter(to_json, "pretty_json")
    blueprint.add_app_template_filter(format_duration, "duration")
    blueprint.add_app_template_filter(took_s, "took_s")


def took_s(run: Mapping[str, Any]) -> float | None:
    """Return how long a run took from its begin to its end, in seconds; None if it has not both."""
    if not run.get("started_at") or not run.get("finished_at"):
        return None
    ended, began = (datetime.fromisoformat(run[name]) for name in ("finished_at", "started_at"))
    return (ended - began).total_seconds()


def render_page(
    sessions: Sessions,
    session: Session,
    template: str,
    *,
    status: int = HTTPStatus.OK,
    poll_ms: int | None = None,
    **context: Any,
) -> flask.Response:
    """Return a page; one that is refreshed says in ``poll_ms`` when. A page that has not changed is 304."""
    caller = session.caller
    html = flask.render_template(
        f"dashboard/{template}",
        **context,
        prefix=request_prefix(),
        navigation=[(path, name) for path, name, needs in NAVIGATION if caller is None or caller.may(needs)],
        caller=caller,
        requires_key=sessions.requires_key,
        csrf_token=session.csrf_token,
        poll_ms=poll_ms,
        may={str(each): caller is not None and caller.may(each) for each in Permission},
        path=request.path,
    )
    response = flask.Response(html, status, mimetype="text/html")
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Referrer-Policy"] = "same-origin"
    response.vary.add("Cookie")
    if session.is_new:
        sessions.set_cookie(response, session)
    elif status == HTTPStatus.OK:
        response.set_etag(hashlib.sha256(html.encode()).hexdigest()[:32])
        response.make_conditional(request)
    return response


def redirect(path: str) -> flask.Response:
    """Return a redirect to another page of the dashboard, to be fetched by GET."""
    headers = {"Location": request_prefix() + path, "Cache-Control": "no-store"}
    return flask.Response(status=HTTPStatus.SEE_OTHER, headers=headers)
