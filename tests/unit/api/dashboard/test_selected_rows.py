"""What is done to selected rows: one that has changed is skipped, and a refusal midway hides nothing that was done."""

from __future__ import annotations

from typing import Any

import flask
import pytest

from api.dashboard import internal_api
from api.dashboard.internal_api import ApiRefused
from api.dashboard.selected_rows import post_each
from shared.domain.access.caller import LOCAL_CALLER

PATHS = [f"/executions/{number}/retry" for number in range(4)]


def post(monkeypatch: pytest.MonkeyPatch, statuses: list[int]) -> tuple[str, list[str]]:
    """Return what is said, and the keys that were sent, if the API replies with these statuses."""
    replies, keys = iter(statuses), []

    def send(*_: Any, HTTP_IDEMPOTENCY_KEY: str, **__: Any) -> None:  # noqa: N803  (as in WSGI)
        keys.append(HTTP_IDEMPOTENCY_KEY)
        if (status := next(replies)) >= 400:
            raise ApiRefused(status, {"detail": "too many requests"})

    monkeypatch.setattr(internal_api, "send", send)
    with flask.Flask(__name__).test_request_context(method="POST", data={"form_key": "minute-7"}):
        return post_each(LOCAL_CALLER, PATHS, "retried"), keys


def test_rows_that_have_changed_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    said, keys = post(monkeypatch, [202, 409, 404, 202])
    assert said == "2 retried, 2 skipped"
    assert keys == [f"dashboard-minute-7{path}" for path in PATHS], "each row has its own key, the same at a repeat"


def test_a_refusal_midway_says_what_was_done_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said, keys = post(monkeypatch, [202, 429])
    assert said == "1 retried; the others were not: too many requests"
    assert len(keys) == 2
    with pytest.raises(ApiRefused):
        post(monkeypatch, [429])
