"""The pages of runs: the list with its filters, one run, and what can be done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

import flask
from flask import request

from api.dashboard import internal_api
from api.dashboard.internal_api import ApiRefused, segment
from api.dashboard.pages import POLL_MS, redirect, render_page
from api.dashboard.selected_rows import idempotency_key, key_of_this_minute, post_each
from api.dashboard.sessions import Session, Sessions, logged_in_caller
from api.dashboard.timeline import build_timeline
from shared.domain.access.caller import Caller
from shared.domain.status import ExecutionStatus
from shared.errors import ValidationFailed
from shared.telemetry.tracing.trace_context import parse_traceparent

PAGE_ROWS: Final = "50"
_RUN_POLL_MIN_MS: Final = 500
_RUN_POLL_MAX_MS: Final = 5_000


def add_pages(blp: flask.Blueprint, sessions: Sessions, trace_url: str) -> None:
    """Add the pages of runs to the blueprint; ``trace_url`` is where a trace is shown, or empty."""

    @blp.route("/ui/runs")
    def runs() -> flask.Response:
        """Get the page of the runs that match the filters of the address."""
        session: Session = flask.g.session
        filters = [(name, value) for name, value in request.args.items(multi=True) if value and name != "done"]
        error, found = None, dict[str, Any](executions=[], next_cursor=None)
        try:
            query = [("limit", PAGE_ROWS), *_without(filters, "limit")]
            found = internal_api.get(logged_in_caller(), "/executions", query)
        except ApiRefused as refused:
            if refused.status != HTTPStatus.BAD_REQUEST:
                raise
            error = str(refused)
        next_query = urlencode([*_without(filters, "cursor"), ("cursor", found["next_cursor"] or "")])
        return render_page(
            sessions,
            session,
            "runs.html",
            poll_ms=POLL_MS,
            runs=found["executions"],
            next_query=next_query if found["next_cursor"] else None,
            filters=dict(filters),
            has_filter=any(name not in {"cursor", "order"} for name, _ in filters),
            status_links=_status_links(filters),
            counts=_counts(logged_in_caller()),
            error=error,
            form_key=key_of_this_minute(),
            done=request.args.get("done"),
            status=HTTPStatus.OK if error is None else HTTPStatus.BAD_REQUEST,
        )

    @blp.route("/ui/runs", methods=["POST"])
    def act_on_selected() -> flask.Response:
        """Cancel or retry the runs that were selected on the page, one after the other."""
        action = request.form.get("action", "")
        word = {"cancel": "cancelled", "retry": "retried"}.get(action)
        if word is None:
            raise ValidationFailed("the action must be cancel or retry")
        paths = (f"/executions/{segment(each)}/{action}" for each in request.form.getlist("execution_id"))
        done = post_each(logged_in_caller(), paths, word)
        query = request.form.get("query", "")
        return redirect(f"/ui/runs?{query}{'&' if query else ''}{urlencode({'done': done})}")

    _add_run(blp, sessions, trace_url)


def _add_run(blp: flask.Blueprint, sessions: Sessions, trace_url: str) -> None:
    @blp.route("/ui/runs/<execution_id>")
    def run(execution_id: str) -> flask.Response:
        """Get the page of one run."""
        session: Session = flask.g.session
        caller = logged_in_caller()
        view = internal_api.get(caller, f"/executions/{segment(execution_id)}")
        hint_ms = view.get("poll_after_ms")
        return render_page(
            sessions,
            session,
            "run.html",
            poll_ms=None if hint_ms is None else min(max(hint_ms, _RUN_POLL_MIN_MS), _RUN_POLL_MAX_MS),
            run=view,
            timeline=build_timeline(view, datetime.now(UTC)),
            trace=_trace(view.get("traceparent"), trace_url),
            input=internal_api.get_if_shown(caller, f"/executions/{execution_id}/input"),
            retries=_retries(caller, execution_id),
            has_basket=internal_api.get_if_shown(caller, f"/baskets/{segment(view['basket_name'])}") is not None,
        )

    @blp.route("/ui/runs/<execution_id>/cancel", methods=["POST"])
    def cancel(execution_id: str) -> flask.Response:
        """Cancel a run."""
        body = {"reason": "cancelled on the dashboard"}
        internal_api.send(logged_in_caller(), "POST", f"/executions/{segment(execution_id)}/cancel", body=body)
        return redirect(f"/ui/runs/{execution_id}")

    @blp.route("/ui/runs/<execution_id>/retry", methods=["POST"])
    def retry(execution_id: str) -> flask.Response:
        """Retry a run that is over, from the step that failed or from its start."""
        reply = internal_api.send(
            logged_in_caller(),
            "POST",
            f"/executions/{segment(execution_id)}/retry",
            body={"from": request.form.get("from", "failed")},
            HTTP_IDEMPOTENCY_KEY=idempotency_key(),
        )
        return redirect(f"/ui/runs/{reply['execution_id']}")


def _trace(traceparent: str | None, trace_url: str) -> Mapping[str, str | None] | None:
    """Return the id of a run's trace, and where it is shown: nowhere if it was not exported or no place is set."""
    context = parse_traceparent(traceparent)
    if context is None:
        return None
    trace_id = context.log_fields["trace_id"]
    is_shown = trace_url and context.is_sampled
    return {"id": trace_id, "url": trace_url.replace("{trace_id}", trace_id) if is_shown else None}


def _retries(caller: Caller, execution_id: str) -> Sequence[Mapping[str, Any]]:
    query = [("retry_of", execution_id), ("limit", "20")]
    found: Sequence[Mapping[str, Any]] = internal_api.get(caller, "/executions", query)["executions"]
    return found


def _status_links(filters: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str, bool]]:
    """Return (status, query, is chosen) for the links above the list."""
    others = [(name, value) for name, value in filters if name not in {"status", "cursor"}]
    chosen = {value for name, value in filters if name == "status"}
    one_status = [
        (each, urlencode([*others, ("status", each)]), {each} == chosen) for each in map(str, ExecutionStatus)
    ]
    return [("all", urlencode(others), not chosen), *one_status]


def _counts(caller: Caller) -> Mapping[str, int] | None:
    """Return how many runs have each status, of those that are over in the last 24 h; None while a store is away."""
    stats = internal_api.get_if_there(caller, "/executions/stats")
    return None if stats is None else stats["by_status"]


def _without(pairs: Sequence[tuple[str, str]], name: str) -> Sequence[tuple[str, str]]:
    return [pair for pair in pairs if pair[0] != name]
