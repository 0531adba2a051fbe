"""GET /executions/{id}/result: 202 until the run is done, then the result alone, or 409 with the run's error."""

from __future__ import annotations

import pytest

from tests.acceptance.client import INCOME, ApiClient

UNKNOWN = "1763700000_89ce24ad1b2c3d4e"
PREFIXES = ("", "/api/v1")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_run_that_is_not_done_is_202_with_the_time_to_come_back(caller: ApiClient, prefix: str) -> None:
    run = caller.submit_basket("working_test", run_after_s=3600)
    response = caller.get(f"{prefix}/executions/{run}/result")
    body = response.json()
    assert (response.status_code, body["status"], body["done"]) == (202, "scheduled", False)
    assert response.headers["Location"] == f"{prefix}/executions/{run}/result"
    assert response.headers["Cache-Control"] == "no-store"
    assert int(response.headers["Retry-After"]) == -(-body["poll_after_ms"] // 1000)
    assert set(body) == {
        "execution_id", "status", "done", "rev", "progress", "current_step", "waiting_for", "poll_after_ms",
    }  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_completed_run_is_200_with_its_result_alone(caller: ApiClient, prefix: str) -> None:
    view = caller.wait_done(caller.submit_basket("chained_test", input_data=INCOME))
    response = caller.get(f"{prefix}/executions/{view['execution_id']}/result")
    assert (response.status_code, response.json()) == (200, view["result"])
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert {"Location", "Retry-After", "ETag"} & set(response.headers) == set()
    caller.stack.redis().flushdb()
    assert caller.get(f"{prefix}/executions/{view['execution_id']}/result").json() == view["result"]


def test_a_large_result_is_whole(caller: ApiClient) -> None:
    script = {"script": ["completed"], "result_bytes": 400_000}
    view = caller.wait_done(caller.submit_basket("simulate", input_data=script))
    assert len(caller.get(f"/executions/{view['execution_id']}/result").content) == 400_000


def test_a_failed_run_is_409_with_its_error(caller: ApiClient) -> None:
    view = caller.wait_done(caller.submit_basket("simulate", input_data={"script": ["failed:card_declined"]}))
    response = caller.get(f"/executions/{view['execution_id']}/result")
    body = response.json()
    assert (response.status_code, body["error_code"], body["error"]) == (409, "execution_failed", view["error"])
    assert view["error"]["message"] in body["detail"]
    assert "Retry-After" not in response.headers


def test_a_cancelled_run_is_409_with_its_error(caller: ApiClient) -> None:
    run = caller.submit_basket("working_test", run_after_s=3600)
    cancelled = caller.request("POST", f"/executions/{run}/cancel").json()
    body = caller.get(f"/executions/{run}/result").json()
    assert (body["status"], body["error_code"], body["error"]) == (409, "execution_cancelled", cancelled["error"])


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=20"}], ids=["query", "prefer"])
def test_a_held_reply_is_the_result(caller: ApiClient, headers: dict[str, str]) -> None:
    run = caller.submit_basket("simulate", input_data={"script": ["queued:0.5", "completed"]})
    query = "" if headers else "?wait=20"
    response = caller.get(f"/executions/{run}/result{query}", headers=headers)
    assert (response.status_code, response.json()) == (200, caller.poll(run)["result"])
    assert response.headers.get("Preference-Applied") == ("wait=20" if headers else None)


def test_a_held_reply_is_202_when_its_time_is_up(caller: ApiClient) -> None:
    run = caller.submit_basket("working_test", run_after_s=3600)
    response = caller.get(f"/executions/{run}/result", headers={"Prefer": "wait=1"})
    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "wait=1")
    assert response.elapsed.total_seconds() >= 1


def test_an_unknown_run_is_404(caller: ApiClient) -> None:
    for name in (UNKNOWN, "None", "x"):
        response = caller.get(f"/executions/{name}/result")
        assert (response.status_code, response.json()["error_code"]) == (404, "execution_not_found")
    for query in ("wait=x", "until=Done"):
        assert caller.get(f"/executions/{UNKNOWN}/result?{query}").status_code == 400
