"""All runs that match the filters of a page: first they are counted, then the person confirms what is done to them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import flask
from flask import request

from api.dashboard import internal_api
from api.dashboard.pages import redirect, render_page
from api.dashboard.selected_rows import idempotency_key
from api.dashboard.sessions import Sessions, logged_in_caller
from shared.errors import ValidationFailed

_ACTIONS: Final = ("cancel", "retry", "dismiss")
_OF_THE_PAGE: Final = frozenset({"limit", "cursor", "order", "fields", "done"})
"""What the address of a list has that does not say which runs match."""
_COUNT_WITHIN_S: Final = "15"


def add_pages(blp: flask.Blueprint, sessions: Sessions) -> None:
    """Add what is done to all runs that match."""

    @blp.route("/ui/actions", methods=["POST"])
    def act_on_matching() -> flask.Response:
        """Count the runs that match and ask whether to act on them; if that was confirmed, begin the action."""
        caller = logged_in_caller()
        action, query = request.form.get("action", ""), request.form.get("query") or request.query_string.decode()
        if action not in _ACTIONS:
            raise ValidationFailed("the action must be cancel, retry or dismiss")
        names = dict(parse_qsl(query))
        integrator = [("integrator", names.pop("integrator"))] if "integrator" in names else []
        body: dict[str, Any] = {
            "action": action,
            "filter": {name: value for name, value in names.items() if name not in _OF_THE_PAGE},
        }
        if request.form.get("confirmed") == "yes":
            reply = internal_api.send(
                caller,
                "POST",
                "/executions/actions",
                integrator,
                body,
                HTTP_IDEMPOTENCY_KEY=idempotency_key(),
            )
            return redirect(f"/ui/runs/{reply['execution_id']}")
        counting = internal_api.send(caller, "POST", "/executions/actions", integrator, body | {"dry_run": True})
        run = f"/executions/{counting['execution_id']}"
        result: Mapping[str, Any] = internal_api.get(caller, f"{run}/result", [("wait", _COUNT_WITHIN_S)])
        if "matched" not in result:
            return redirect(f"/ui/runs/{counting['execution_id']}")  # many runs, or no worker: it is counted there
        return render_page(
            sessions,
            flask.g.session,
            "confirm_action.html",
            action=action,
            query=query,
            filter=body["filter"],
            matched=result["matched"],
            form_key=secrets.token_hex(16),
        )
