"""Asking a run to stop: once, again, and where it is over already; whoever asks twice is answered alike."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.live.views import view_key
from tests.acceptance.client import Caller
from tests.acceptance.test_hints import nobody_takes
from tests.waiting import wait_until

HINTS = {"poll_after_ms", "waiting_for"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
REASON = "no longer of use"


def without(polled: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: told for name, told in polled.items() if name not in names}


@pytest.fixture(scope="module", params=["completed", "failed"])
def over(request: pytest.FixtureRequest, caller: Caller) -> dict[str, Any]:
    """The last poll of a run that came to its end by itself."""
    run = caller.run() if request.param == "completed" else caller.run_agent("raiser", kind="ValueError")
    polled = caller.finished(run)
    assert polled["status"] == request.param
    return polled


@pytest.mark.parametrize("path", ["/executions/{}/cancel", "/api/v1/executions/{}/cancel"])
def test_a_cancel_of_a_run_that_is_over_is_200_and_changes_nothing(
    caller: Caller, over: dict[str, Any], path: str
) -> None:
    run, etag = over["execution_id"], f'W/"{over["execution_id"]}.{over["rev"]}"'
    stored = caller.stack.mongo().executions.find_one({"_id": run})
    for _ in range(2):
        answer = caller.post(path.format(run), {"reason": REASON})
        assert answer.status_code == 200
        assert without(answer.json(), "cancel") == without(over, "cancel")
        assert answer.headers["ETag"] == etag
        assert "Retry-After" not in answer.headers
    assert caller.poll(run) == over
    assert caller.get(f"/execution-logs/{run}", headers={"If-None-Match": etag}).status_code == 304
    assert caller.stack.mongo().executions.find_one({"_id": run}) == stored
    assert caller.stack.redis().delete(view_key(run)) == 1
    assert caller.poll(run) == over, "nor does MongoDB tell of it"


@pytest.mark.parametrize("reason", [REASON, None])
def test_the_reply_alone_tells_that_a_cancel_came_after_the_end(
    caller: Caller, over: dict[str, Any], reason: str | None
) -> None:
    run = over["execution_id"]
    told = caller.post(f"/executions/{run}/cancel", {} if reason is None else {"reason": reason}).json()["cancel"]
    assert caller.poll(run)["cancel"] is None
    assert told is not None, "the reply says what became of the request"
    assert without(told, "requested_at") == {"reason": reason, "outcome": "already_final"}
    assert MOMENT.fullmatch(told["requested_at"])
    assert abs(datetime.now(UTC) - datetime.fromisoformat(told["requested_at"])) < timedelta(seconds=30)


def test_a_run_that_is_stopping_answers_a_second_cancel_as_the_first(brisk: Caller) -> None:
    run = brisk.run_agent("stubborn", how="sleep")
    wait_until(lambda: "begun" in [line["message"] for line in brisk.poll(run)["logs"]], 10, "it has begun")
    with nobody_takes(brisk):  # and nobody hears that it is to stop, so that it stays as it is
        answers = [brisk.post(f"/executions/{run}/cancel", {"reason": reason}) for reason in (REASON, "another")]
        polled = brisk.poll(run)
    first, second = (without(answer.json(), *HINTS) for answer in answers)
    assert [answer.status_code for answer in answers] == [202, 202]
    assert (first["status"], first["done"]) == ("cancelling", False)
    assert without(first["cancel"], "requested_at") == {"reason": REASON, "outcome": "pending"}
    assert second == first == without(polled, *HINTS)
    done = brisk.finished(run)
    assert (done["status"], done["cancel"]) == ("cancelled", first["cancel"] | {"outcome": "applied"})


def test_a_run_that_was_stopped_answers_a_second_cancel_as_the_first(caller: Caller) -> None:
    run = caller.run(run_after_s=3600)
    answers = [caller.post(f"/executions/{run}/cancel", {"reason": reason}) for reason in (REASON, "another")]
    answers.append(caller.ask("POST", f"/executions/{run}/cancel"))
    first = answers[0].json()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert (first["status"], first["done"]) == ("cancelled", True)
    assert without(first["cancel"], "requested_at") == {"reason": REASON, "outcome": "applied"}
    assert [answer.json() for answer in answers] == [first] * 3
    assert caller.poll(run) == first
