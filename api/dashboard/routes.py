"""The blueprint of the dashboard: who is logged in, the page to log in, its files, and its page of errors."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import quote

import flask
import structlog
from flask import request
from werkzeug.exceptions import HTTPException

from api.dashboard import basket_pages, bulk_pages, fleet_pages, run_pages
from api.dashboard.internal_api import ApiRefused
from api.dashboard.pages import POLL_MS, add_filters, redirect, render_page
from api.dashboard.sessions import Session, Sessions
from api.http import problems
from shared.domain.access.caller import PUBLIC_CALLER, Caller
from shared.errors import BucketError, Forbidden

_HERE: Final = Path(__file__).parent
_FILES: Final = {
    "dashboard.css": "text/css",
    "live.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_OPEN_ENDPOINTS: Final = frozenset({"dashboard.log_in", "dashboard.show_log_in", "dashboard.static_file"})

RecordSession = Callable[[str, Caller], None]


def blueprint(sessions: Sessions, record_session: RecordSession, trace_url: str) -> flask.Blueprint:
    """Return the pages; ``record_session`` records a log-in or log-out in the audit, if there is one.

    ``trace_url`` is the address of a trace with ``{trace_id}`` in it; empty if none is set.
    """
    blp = flask.Blueprint("dashboard", __name__, template_folder="templates")
    add_filters(blp)

    @blp.before_request
    def find_session() -> flask.Response | None:
        if request.endpoint == "dashboard.static_file":
            return None
        session = flask.g.session = sessions.current()
        flask.g.caller = session.caller or PUBLIC_CALLER  # for the access log
        if session.caller is None and request.endpoint not in _OPEN_ENDPOINTS:
            if request.method != "GET":
                raise Forbidden("you are not logged in any more, so nothing was done; log in and send it again")
            return redirect(f"/ui/login?next={_quoted_path()}")
        if request.method == "POST":
            sessions.check_form(session)
        return None

    @blp.route("/ui/static/<file>")
    def static_file(file: str) -> flask.Response:
        """Get a style or a script."""
        if file not in _FILES:
            raise problems.route_not_found()
        content = (_HERE / "static" / file).read_bytes()
        headers = {"Cache-Control": "public, max-age=300", "X-Content-Type-Options": "nosniff"}
        return flask.Response(content, headers=headers, mimetype=_FILES[file])

    _add_error_pages(blp, sessions)
    _add_log_in(blp, sessions, record_session)
    fleet_pages.add_pages(blp, sessions)
    run_pages.add_pages(blp, sessions, trace_url)
    bulk_pages.add_pages(blp, sessions)
    basket_pages.add_pages(blp, sessions)
    return blp


def _add_error_pages(blp: flask.Blueprint, sessions: Sessions) -> None:
    @blp.errorhandler(ApiRefused)
    def refused(error: ApiRefused) -> flask.Response:
        return _error_page(sessions, error.status, str(error), error.error_code)

    @blp.errorhandler(BucketError)
    def failed(error: BucketError) -> flask.Response:
        if error.is_internal:
            structlog.get_logger().error("dashboard.failed", exc_info=error)
        return _error_page(sessions, error.http_status, error.message, error.error_code)

    @blp.errorhandler(HTTPException)
    def not_served(error: HTTPException) -> flask.Response:
        return problems.handle_http_error(error)


def _add_log_in(blp: flask.Blueprint, sessions: Sessions, record_session: RecordSession) -> None:
    @blp.route("/ui/login")
    def show_log_in() -> flask.Response:
        """Get the page to log in."""
        session: Session = flask.g.session
        if session.caller is not None:
            return redirect(_next_path())
        return render_page(sessions, session, "login.html", next_path=_next_path())

    @blp.route("/ui/login", methods=["POST"])
    def log_in() -> flask.Response:
        """Begin a session for the key that was sent."""
        if not sessions.requires_key:
            return redirect("/")
        try:
            session = sessions.log_in(request.form.get("key", "").strip())
        except (ApiRefused, Forbidden) as error:
            is_wrong = isinstance(error, ApiRefused) and error.status == HTTPStatus.UNAUTHORIZED
            return render_page(
                sessions,
                flask.g.session,
                "login.html",
                status=HTTPStatus.FORBIDDEN,
                error="This key is not valid." if is_wrong else str(error),
                next_path=_next_path(),
            )
        if session.caller is not None:
            record_session("session.create", session.caller)
        response = redirect(_next_path())
        sessions.set_cookie(response, session)
        return response

    @blp.route("/ui/logout", methods=["POST"])
    def log_out() -> flask.Response:
        """End the session."""
        session: Session = flask.g.session
        sessions.log_out(session)
        if session.caller is not None and sessions.requires_key:
            record_session("session.delete", session.caller)
        return redirect("/ui/login" if sessions.requires_key else "/")


def _error_page(sessions: Sessions, status: int, message: str, error_code: str) -> flask.Response:
    session: Session | None = flask.g.get("session")
    session = session or Session("", None, is_new=False)
    poll_ms = POLL_MS if status == HTTPStatus.SERVICE_UNAVAILABLE else None  # until it is over
    return render_page(
        sessions, session, "error.html", status=status, poll_ms=poll_ms, message=message, error_code=error_code
    )


def _quoted_path() -> str:
    return quote(request.full_path.rstrip("?"), safe="")


def _next_path() -> str:
    """Return where to go after the log-in: a path of the dashboard, never another origin."""
    path = request.values.get("next", "/")
    return path if path == "/" or path.startswith(("/?", "/ui/")) else "/"
