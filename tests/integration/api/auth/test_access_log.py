"""The access log: who asked for what, with which end, and never a key or a query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from tests.callers import SECRET, ApiCaller, Callers


def access_line(send: Callable[[], TestResponse]) -> dict[str, Any]:
    with capture_logs() as lines:
        send()
    [line] = [line for line in lines if line["event"] == "request"]
    return dict(line)


def test_a_line_has_the_caller_the_path_the_run_the_status_and_the_duration(callers: Callers) -> None:
    acme = callers.acme
    subject = acme.get("/me").json["subject"]
    body = {"basket_name": "working_test", "input_data": {"transactions": []}}
    submit = access_line(lambda: acme.post("/run-basket?secret=1", body))
    assert (submit["caller"], submit["method"], submit["path"], submit["status"]) == (
        subject, "POST", "/run-basket", 202
    )  # fmt: skip
    assert submit["duration_ms"] > 0
    run = submit["execution_id"]
    assert callers.load(run).id == run
    cancel = access_line(lambda: acme.post(f"/api/v1/executions/{run}/cancel"))
    assert (cancel["path"], cancel["execution_id"], cancel["status"]) == (f"/api/v1/executions/{run}/cancel", run, 200)


def test_a_foreign_run_and_a_missing_right_stand_with_who_asked(callers: Callers) -> None:
    run = callers.acme.submit()
    foreign = access_line(lambda: callers.zenith.get(f"/executions/{run}"))
    assert (foreign["caller"], foreign["execution_id"], foreign["status"]) == (
        callers.zenith.get("/me").json["subject"], run, 404
    )  # fmt: skip
    refused = access_line(lambda: callers.acme.get("/keys"))
    assert (refused["caller"], refused["path"], refused["status"]) == (
        callers.acme.get("/me").json["subject"], "/keys", 403
    )  # fmt: skip


def test_no_line_shows_a_key_wherever_it_was_sent(callers: Callers) -> None:
    acme = callers.acme
    key, stranger = acme.key, ApiCaller(acme.client, f"{acme.key[:-4]}aaaa", acme.integrator)
    lines = [
        access_line(lambda: acme.get(f"/me?key={key}")),
        access_line(lambda: acme.get(f"/executions/{key}")),
        access_line(lambda: acme.get(f"/{key}")),
        access_line(lambda: stranger.get("/me")),
        access_line(lambda: acme.post("/run-basket", {"basket_name": key, "metadata": {"x": SECRET}})),
    ]
    assert [line["status"] for line in lines] == [200, 404, 404, 401, 404]
    for line in lines:
        assert key.rpartition("_")[2][:20] not in str(line)
        assert SECRET not in str(line)
