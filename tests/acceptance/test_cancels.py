"""Cancelling a run: once, a second time, and after its end; both requests get the same reply."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.live.views import view_key
from tests.acceptance.client import ApiClient
from tests.acceptance.test_hints import no_worker_takes
from tests.waiting import wait_until

HINTS = {"poll_after_ms", "waiting_for"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
REASON = "no longer of use"


def without_fields(view: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in view.items() if name not in names}


@pytest.fixture(scope="module", params=["completed", "failed"])
def ended_run(request: pytest.FixtureRequest, caller: ApiClient) -> dict[str, Any]:
    """Return the last view of a run that ended by itself."""
    run = caller.submit_basket() if request.param == "completed" else caller.submit_agent("raiser", kind="ValueError")
    view = caller.wait_done(run)
    assert view["status"] == request.param
    return view


@pytest.mark.parametrize("path", ["/executions/{}/cancel", "/api/v1/executions/{}/cancel"])
def test_a_cancel_of_an_ended_run_is_200_and_changes_nothing(
    caller: ApiClient, ended_run: dict[str, Any], path: str
) -> None:
    run, etag = ended_run["execution_id"], f'W/"{ended_run["execution_id"]}.{ended_run["rev"]}"'
    stored = caller.stack.mongo().executions.find_one({"_id": run})
    for _ in range(2):
        response = caller.post(path.format(run), {"reason": REASON})
        assert response.status_code == 200
        assert without_fields(response.json(), "cancel") == without_fields(ended_run, "cancel")
        assert response.headers["ETag"] == etag
        assert "Retry-After" not in response.headers
    assert caller.poll(run) == ended_run
    assert caller.get(f"/execution-logs/{run}", headers={"If-None-Match": etag}).status_code == 304
    assert caller.stack.mongo().executions.find_one({"_id": run}) == stored
    assert caller.stack.redis().delete(view_key(PUBLIC_INTEGRATOR, run)) == 1
    assert caller.poll(run) == ended_run, "MongoDB does not show the cancel either"


@pytest.mark.parametrize("reason", [REASON, None])
def test_only_the_reply_says_that_a_cancel_came_after_the_end(
    caller: ApiClient, ended_run: dict[str, Any], reason: str | None
) -> None:
    run = ended_run["execution_id"]
    cancel = caller.post(f"/executions/{run}/cancel", {} if reason is None else {"reason": reason}).json()["cancel"]
    assert caller.poll(run)["cancel"] is None
    assert cancel is not None, "the reply says what happened to the request"
    assert without_fields(cancel, "requested_at") == {"reason": reason, "outcome": "already_final"}
    assert MOMENT.fullmatch(cancel["requested_at"])
    assert abs(datetime.now(UTC) - datetime.fromisoformat(cancel["requested_at"])) < timedelta(seconds=30)


def test_a_second_cancel_of_a_stopping_run_gets_the_reply_of_the_first(short_lease_caller: ApiClient) -> None:
    run = short_lease_caller.submit_agent("stubborn", how="sleep")
    wait_until(
        lambda: "begun" in [line["message"] for line in short_lease_caller.poll(run)["logs"]], 10, "it has begun"
    )
    with no_worker_takes(short_lease_caller):  # no worker receives the cancel, so the run stays as it is
        responses = [
            short_lease_caller.post(f"/executions/{run}/cancel", {"reason": reason}) for reason in (REASON, "another")
        ]
        view = short_lease_caller.poll(run)
    first, second = (without_fields(response.json(), *HINTS) for response in responses)
    assert [response.status_code for response in responses] == [202, 202]
    assert (first["status"], first["done"]) == ("cancelling", False)
    assert without_fields(first["cancel"], "requested_at") == {"reason": REASON, "outcome": "pending"}
    assert second == first == without_fields(view, *HINTS)
    final_view = short_lease_caller.wait_done(run)
    assert (final_view["status"], final_view["cancel"]) == ("cancelled", first["cancel"] | {"outcome": "applied"})


def test_a_second_cancel_of_a_stopped_run_gets_the_reply_of_the_first(caller: ApiClient) -> None:
    run = caller.submit_basket(run_after_s=3600)
    responses = [caller.post(f"/executions/{run}/cancel", {"reason": reason}) for reason in (REASON, "another")]
    responses.append(caller.request("POST", f"/executions/{run}/cancel"))
    first = responses[0].json()
    assert [response.status_code for response in responses] == [200] * 3
    assert (first["status"], first["done"]) == ("cancelled", True)
    assert without_fields(first["cancel"], "requested_at") == {"reason": REASON, "outcome": "applied"}
    assert [response.json() for response in responses] == [first] * 3
    assert caller.poll(run) == first


def test_no_poll_takes_back_what_a_cancel_has_shown(caller: ApiClient) -> None:
    """As if the reply to the first request, and with it the view, had been lost."""
    run = caller.submit_basket(run_after_s=3600)
    redis_client, key = caller.stack.redis(), view_key(PUBLIC_INTEGRATOR, run)
    first_view = redis_client.get(key)
    caller.post(f"/executions/{run}/cancel", {"reason": REASON})
    redis_client.set(key, str(first_view), ex=60)
    assert caller.poll(run)["status"] == "scheduled", "this is what would be shown"
    assert caller.post(f"/executions/{run}/cancel", {"reason": REASON}).json()["status"] == "cancelled"
    assert caller.poll(run)["status"] == "cancelled"
