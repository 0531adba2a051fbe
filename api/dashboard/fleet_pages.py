"""The pages of the fleet: overview, workers, dead letters, and the consumers of the feed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import flask
from flask import request

from api.dashboard import internal_api
from api.dashboard.charts import Chart, latency_chart, throughput_chart
from api.dashboard.internal_api import segment
from api.dashboard.pages import POLL_MS, redirect, render_page
from api.dashboard.selected_rows import post_each
from api.dashboard.sessions import Session, Sessions, logged_in_caller
from shared.domain.access.caller import Permission
from shared.errors import ValidationFailed

_LAST_HOUR: Final = [("series", "1h")]
_NEWEST: Final = [("limit", "8")]
_FAILED: Final = [("limit", "100"), ("status", "failed")]
_FAILING_SHOWN: Final = 6
_LETTERS: Final = "100"


def add_pages(blp: flask.Blueprint, sessions: Sessions) -> None:
    """Add the pages of the fleet to the blueprint."""

    @blp.route("/")
    def overview() -> flask.Response:
        """Get the overview: health with reasons, figures, queues, failures; also while a store is away."""
        caller = logged_in_caller()
        failed = internal_api.get_if_there(caller, "/executions", _FAILED)
        stats = internal_api.get_if_there(caller, "/executions/stats", _LAST_HOUR)
        return render_page(
            sessions,
            flask.g.session,
            "overview.html",
            poll_ms=POLL_MS,
            health=internal_api.get(caller, "/health"),
            stats=stats,
            charts=None if stats is None else _charts(stats["series"]),
            newest=internal_api.get_if_there(caller, "/executions", _NEWEST),
            failed=failed,
            failing=_failing_baskets(failed),
        )

    @blp.route("/ui/workers")
    def workers() -> flask.Response:
        """Get the page of the workers and the reconcilers."""
        fleet = internal_api.get(logged_in_caller(), "/workers")
        return render_page(sessions, flask.g.session, "workers.html", poll_ms=POLL_MS, fleet=fleet)

    @blp.route("/ui/consumers")
    def consumers() -> flask.Response:
        """Get the page of the feed's consumers, with how far behind each is."""
        found = internal_api.get(logged_in_caller(), "/consumers")["consumers"]
        return render_page(sessions, flask.g.session, "consumers.html", poll_ms=POLL_MS, consumers=found)

    @blp.route("/ui/consumers/<name>/delete", methods=["POST"])
    def delete_consumer(name: str) -> flask.Response:
        """Delete a consumer."""
        owner = request.form.get("integrator")
        query = [("integrator", owner)] if owner else []
        internal_api.send(logged_in_caller(), "DELETE", f"/consumers/{segment(name)}", query)
        return redirect("/ui/consumers")

    _add_dead_letters(blp, sessions)


def _add_dead_letters(blp: flask.Blueprint, sessions: Sessions) -> None:
    @blp.route("/ui/dead-letters")
    def dead_letters() -> flask.Response:
        """Get the page of what failed for good, grouped by error."""
        session: Session = flask.g.session
        filters = [(name, value) for name, value in request.args.items() if value and name != "done"]
        query = [("limit", _LETTERS), *(pair for pair in filters if pair[0] != "limit")]
        found = internal_api.get(logged_in_caller(), "/dead-letters", query)
        others = [pair for pair in filters if pair[0] != "cursor"]
        next_query = urlencode([*others, ("cursor", found["next_cursor"] or "")])
        return render_page(
            sessions,
            session,
            "dead_letters.html",
            poll_ms=POLL_MS,
            groups=_by_error(found["dead_letters"]),
            next_query=next_query if found["next_cursor"] else None,
            filters=dict(filters),
            matching=_matching(dict(filters)),
            done=request.args.get("done"),
            may_act=session.caller is not None and session.caller.may(Permission.OPERATE),
        )

    @blp.route("/ui/dead-letters", methods=["POST"])
    def act_on_selected_letters() -> flask.Response:
        """Requeue or dismiss the dead letters that were selected, one after the other."""
        action = request.form.get("action", "")
        word = {"requeue": "requeued", "dismiss": "dismissed"}.get(action)
        if word is None:
            raise ValidationFailed("the action must be requeue or dismiss")
        paths = (f"/dead-letters/{segment(each)}/{action}" for each in request.form.getlist("letter_id"))
        text = post_each(logged_in_caller(), paths, word)
        return redirect(f"/ui/dead-letters?{urlencode({'done': text})}")

    @blp.route("/ui/dead-letters/<letter_id>/requeue", methods=["POST"])
    def requeue(letter_id: str) -> flask.Response:
        """Send a dead letter again."""
        reply = internal_api.send(
            logged_in_caller(),
            "POST",
            f"/dead-letters/{segment(letter_id)}/requeue",
            body={},
            HTTP_IDEMPOTENCY_KEY=f"dashboard-requeue-{letter_id}"[:255],
        )
        return redirect(f"/ui/runs/{reply['execution_id']}")

    @blp.route("/ui/dead-letters/<letter_id>/dismiss", methods=["POST"])
    def dismiss(letter_id: str) -> flask.Response:
        """Dismiss a dead letter: it leaves the list, its run stays."""
        internal_api.send(logged_in_caller(), "POST", f"/dead-letters/{segment(letter_id)}/dismiss", body={})
        return redirect("/ui/dead-letters")


def _charts(series: Sequence[Mapping[str, Any]]) -> Sequence[tuple[str, Chart, Sequence[tuple[str, str]]]]:
    """Return the title, the chart and the legend of each chart."""
    ends = [(kind, kind) for kind in ("completed", "failed", "cancelled")]
    shares = [("p50", "half of the runs"), ("p95", "95 % of them")]
    return [
        ("Runs that ended, by minute", throughput_chart(series), ends),
        ("How long they took, by minute", latency_chart(series), shares),
    ]


def _matching(filters: Mapping[str, str]) -> Mapping[str, str]:
    """Return the filter of a bulk action for the dead letters that the page's filters show."""
    kept = {name: filters[name] for name in ("basket", "integrator") if name in filters}
    return {"status": "failed", "dead_letter": "true", **kept}


def _failing_baskets(failed: Mapping[str, Any] | None) -> Sequence[tuple[str, int]]:
    """Return the baskets of the newest failures by how many are theirs, the most first."""
    runs = [] if failed is None else failed["executions"]
    return Counter(run["basket_name"] for run in runs).most_common(_FAILING_SHOWN)


def _by_error(letters: Sequence[Mapping[str, Any]]) -> Sequence[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Return the letters by error code, the largest group first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for letter in letters:
        groups.setdefault(letter["error"]["error_code"], []).append(letter)
    return sorted(groups.items(), key=lambda group: -len(group[1]))
