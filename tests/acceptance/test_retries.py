"""A run that failed is sent again: by its id, or as a dead letter; and a key answers its run whatever came since."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.queue.message import PRIORITY_FIRST_OFFER, TaskMessage, encode_message, list_key
from tests.acceptance.client import Caller
from tests.tampered_cursors import spoilt
from tests.waiting import wait_until


def counted_then_flaky(tmp_path: Path, failures: int = 1) -> dict[str, Any]:
    """A counter, then a step that fails for good in its first runs."""
    flaky = {"path": str(tmp_path / "tries"), "failures": failures}
    steps = [
        {"agent": "counter", "input": {"file": str(tmp_path / "counted")}},
        {"agent": "flaky", "needs": ["counter"], "input": flaky, "retry": "none"},
        {"id": "last", "agent": "echo", "needs": ["flaky"]},
    ]
    return {"config": {"name": "again", "steps": steps}, "tags": ["x"], "metadata": {"order": 7}}


def failed(caller: Caller, tmp_path: Path, failures: int = 1) -> str:
    answer = caller.post("/run-basket", counted_then_flaky(tmp_path, failures), X_Request_ID="the-first")
    execution_id: str = answer.json()["execution_id"]
    assert caller.finished(execution_id)["status"] == "failed"
    return execution_id


def counted(tmp_path: Path) -> int:
    return len((tmp_path / "counted").read_text().splitlines())


def test_a_retry_reuses_what_was_finished_and_names_what_it_retries(caller: Caller, tmp_path: Path) -> None:
    first = failed(caller, tmp_path)
    before = caller.poll(first)
    answer = caller.post(f"/executions/{first}/retry", {"from": "failed", "form": 1}, X_Request_ID="the-second")
    body = answer.json()
    assert answer.status_code == 202, answer.text
    second = body["execution_id"]
    assert second != first
    assert (body["status"], body["done"], body["retry_of"], body["request_id"]) == (
        "queued", False, first, "the-second",
    )  # fmt: skip
    assert answer.headers["Location"] == body["status_url"] == f"/execution-logs/{second}"
    assert answer.headers["ETag"] == f'W/"{second}.1"'
    assert int(answer.headers["Retry-After"]) >= 1
    assert body["warnings"] == ["unknown field 'form' was ignored; did you mean from?"]

    polled = caller.finished(second)
    assert (polled["status"], polled["retry_of"], polled["result"]) == ("completed", first, {"last": {"tries": 2}})
    assert (polled["tags"], polled["metadata"], polled["basket_name"]) == (["x"], {"order": 7}, "again")
    assert polled["outputs"]["counter"] == before["outputs"]["counter"]
    assert counted(tmp_path) == 1, "what was finished was not run again"
    assert caller.get(f"/executions/{second}/outputs/counter").json() == before["outputs"]["counter"]
    assert caller.poll(first) == before, "the first one stays as it ended"


def test_a_retry_shows_what_it_begins_with_at_once(caller: Caller, tmp_path: Path) -> None:
    first = failed(caller, tmp_path, failures=2)
    second = caller.ask("POST", f"/executions/{first}/retry").json()["execution_id"]
    polled = caller.poll(second)
    assert polled["steps"][0]["status"] == "completed"
    assert polled["outputs"]["counter"]["file"] == str(tmp_path / "counted")
    assert caller.finished(second)["status"] == "failed"
    third = caller.ask("POST", f"/api/v1/executions/{second}/retry")
    assert third.json()["status_url"].startswith("/api/v1/")
    polled = caller.finished(third.json()["execution_id"])
    assert (polled["status"], polled["retry_of"]) == ("completed", second)
    assert counted(tmp_path) == 1


def test_from_the_start_all_of_it_runs_again_also_of_one_that_completed(caller: Caller, tmp_path: Path) -> None:
    first = failed(caller, tmp_path)
    second = caller.post(f"/executions/{first}/retry", {"from": "start"}).json()["execution_id"]
    assert caller.finished(second)["status"] == "completed"
    assert counted(tmp_path) == 2
    assert caller.ask("POST", f"/executions/{second}/retry").json()["error_code"] == "not_retryable"
    third = caller.post(f"/executions/{second}/retry", {"from": "start"})
    assert caller.finished(third.json()["execution_id"])["status"] == "completed"


def test_outputs_too_large_for_the_execution_are_copied_too(caller: Caller, tmp_path: Path) -> None:
    flaky = {"path": str(tmp_path / "tries"), "failures": 1}
    steps = [
        {"agent": "big", "input": {"bytes": 2_000_000}},
        {"agent": "flaky", "needs": ["big"], "input": flaky, "retry": "none"},
    ]
    first = caller.post("/run-basket", {"config": {"steps": steps}}).json()["execution_id"]
    assert caller.finished(first)["status"] == "failed"
    second = caller.ask("POST", f"/executions/{first}/retry").json()["execution_id"]
    assert caller.finished(second)["status"] == "completed"
    output = caller.get(f"/executions/{second}/outputs/big")
    assert (output.status_code, len(output.json()["text"])) == (200, 2_000_000)


def test_a_cancelled_run_can_be_retried(caller: Caller) -> None:
    first = caller.run_agent("sleeper", seconds=60, slice_s=0.01)
    wait_until(lambda: caller.poll(first)["status"] == "running")
    caller.ask("POST", f"/executions/{first}/cancel")
    assert caller.finished(first)["done"]
    if caller.poll(first)["status"] == "cancelled":  # else it was done before it heard
        second = caller.ask("POST", f"/executions/{first}/retry").json()["execution_id"]
        caller.ask("POST", f"/executions/{second}/cancel")
        assert caller.finished(second)["retry_of"] == first


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"from": "middle"}, 400, "validation_failed"),
        ({"from": 1}, 400, "validation_failed"),
        ({"from": None}, 400, "validation_failed"),
        ([], 400, "validation_failed"),
        ({}, 409, "not_retryable"),
        ({"from": "failed"}, 409, "not_retryable"),
    ],
    ids=str,
)
def test_a_retry_that_cannot_be_is_refused_and_stores_nothing(
    caller: Caller, body: Any, status: int, code: str
) -> None:
    completed = caller.run_agent("echo")
    caller.finished(completed)
    before = caller.stored()
    refused = caller.post(f"/executions/{completed}/retry", body)
    assert (refused.status_code, refused.json()["error_code"]) == (status, code)
    if status == 400 and isinstance(body, dict):
        assert refused.json()["details"][0]["pointer"] == "/from"
    assert caller.stored() == before


def test_a_run_that_is_under_way_cannot_be_retried(caller: Caller) -> None:
    run = caller.post("/run-agent", {"agent_name": "echo", "input_data": {}, "run_after_s": 600}).json()["execution_id"]
    for at in ("failed", "start"):
        refused = caller.post(f"/executions/{run}/retry", {"from": at})
        assert (refused.status_code, refused.json()["error_code"]) == (409, "not_retryable")
        assert "scheduled" in refused.json()["detail"]
    caller.ask("POST", f"/executions/{run}/cancel")


@pytest.mark.parametrize("run", ["1763700000_0000000000000000", "None", "no-id", "$where"])
def test_an_unknown_run_cannot_be_retried(caller: Caller, run: str) -> None:
    refused = caller.ask("POST", f"/executions/{run}/retry")
    assert (refused.status_code, refused.json()["error_code"]) == (404, "execution_not_found")


def test_one_key_makes_one_retry(caller: Caller, tmp_path: Path) -> None:
    first = failed(caller, tmp_path)
    key = uuid.uuid4().hex
    made = [caller.post(f"/executions/{first}/retry", {}, Idempotency_Key=key) for _ in range(2)]
    made.append(caller.post(f"/api/v1/executions/{first}/retry", {}, Idempotency_Key=key))
    made.append(caller.ask("POST", f"/executions/{first}/retry", headers={"Idempotency-Key": key}))
    assert len({answer.json()["execution_id"] for answer in made}) == 1
    assert [answer.headers.get("Idempotency-Replayed") for answer in made] == [None, "true", "true", "true"]
    caller.finished(made[0].json()["execution_id"])
    reused = caller.post(f"/executions/{first}/retry", {"from": "start"}, Idempotency_Key=key)
    assert (reused.status_code, reused.json()["error_code"]) == (422, "idempotency_key_reused")
    elsewhere = caller.post(f"/executions/{made[0].json()['execution_id']}/retry", {}, Idempotency_Key=key)
    assert elsewhere.status_code == 422, "the run is part of what was asked"


def test_a_key_answers_its_run_though_its_basket_is_gone(caller: Caller) -> None:
    name = f"short lived {uuid.uuid4().hex[:8]}"
    assert caller.post("/create-basket", {"name": name, "agents": ["echo"]}).status_code == 201
    first = caller.post("/run-basket", {"basket_name": name}, Idempotency_Key=name)
    caller.finished(first.json()["execution_id"])
    assert caller.ask("DELETE", f"/baskets/{name}").status_code == 200
    again = caller.post("/run-basket", {"basket_name": name}, Idempotency_Key=name)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert again.json()["execution_id"] == first.json()["execution_id"]
    other = caller.post("/run-basket", {"basket_name": name, "tags": ["b"]}, Idempotency_Key=name)
    assert (other.status_code, other.json()["error_code"]) == (422, "idempotency_key_reused")
    wait_until(lambda: caller.post("/run-basket", {"basket_name": name}).status_code == 404, 6, "it is not cached")


def letters(caller: Caller, **query: Any) -> dict[str, Any]:
    answer = caller.get("/dead-letters", params=query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def test_what_failed_for_good_is_a_dead_letter_until_and_after_it_is_sent_again(caller: Caller, tmp_path: Path) -> None:
    run = failed(caller, tmp_path)
    letter = letters(caller, limit=1)["dead_letters"][0]
    polled = caller.poll(run)
    assert letter == {
        "id": run, "kind": "execution", "execution_id": run, "basket_name": "again", "error": polled["error"],
        "finished_at": polled["finished_at"], "retried_as": [],
    }  # fmt: skip
    answer = caller.ask("POST", f"/dead-letters/{run}/requeue")
    assert (answer.status_code, answer.json()["retry_of"]) == (202, run)
    again = answer.json()["execution_id"]
    assert caller.finished(again)["status"] == "completed"
    assert counted(tmp_path) == 1
    assert letters(caller, limit=1)["dead_letters"][0]["retried_as"] == [again]


def test_dead_letters_come_page_by_page_the_newest_first(caller: Caller, tmp_path: Path) -> None:
    made = []
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        made.append(failed(caller, tmp_path / str(number)))
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while len(seen) < 5:
        page = letters(caller, limit=2, **cursor)
        assert len(page["dead_letters"]) <= 2
        seen += [letter["id"] for letter in page["dead_letters"]]
        cursor = {"cursor": page["next_cursor"]}
    # By the moments that they bear: two processes of a worker wrote them, whose clocks are apart by what a look takes.
    ended = {run: (caller.poll(run)["finished_at"], run) for run in made}
    assert seen[:5] == sorted(made, key=ended.__getitem__, reverse=True)
    assert letters(caller, limit=1000)["next_cursor"] is None


@pytest.mark.parametrize(
    "cursor", ["", "made-up", "MS5h", "AAAA", "ü", "x" * 300, "MS4wMDAwMDAwMDAwXzAwMDAwMDAwMDAwMDAwMDA"]
)
def test_a_made_up_cursor_is_refused(caller: Caller, cursor: str) -> None:
    refused = caller.get("/dead-letters", params={"cursor": cursor})
    assert (refused.status_code, refused.json()["error_code"]) == (400, "cursor_invalid")


def test_whatever_was_changed_in_a_cursor_it_is_refused(caller: Caller, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        failed(caller, tmp_path / name)
    cursor = letters(caller, limit=1)["next_cursor"]
    for other in spoilt(cursor, "Aw_"):
        refused = caller.get("/dead-letters", params={"cursor": other})
        assert (refused.status_code, refused.json()["error_code"]) == (400, "cursor_invalid"), other
    assert caller.get("/executions", params={"cursor": cursor}).json()["error_code"] == "cursor_invalid"


def test_a_message_that_nobody_can_read_is_a_dead_letter_and_a_bell_for_nothing_is_none(caller: Caller) -> None:
    mark = uuid.uuid4().hex
    client = caller.stack.redis()
    real = json.loads(
        encode_message(
            TaskMessage(PUBLIC_INTEGRATOR, "none", "none", datetime.now(UTC)), "default", PRIORITY_FIRST_OFFER
        )
    )
    for args in (
        [mark, 2, 3, 4],
        [mark, "b"],
        [PUBLIC_INTEGRATOR, "1763700000_0000000000000000", mark, 1],
        [mark, 2, 3, 4],
    ):
        body = base64.b64encode(json.dumps([args, {}, {}]).encode()).decode()
        client.lpush(list_key("default", PRIORITY_FIRST_OFFER), json.dumps(real | {"body": body}))
    kept = caller.stack.mongo().dead_letters
    wait_until(lambda: {d["times"] for d in kept.find({"message": {"$regex": mark}})} == {1, 2}, what="both are kept")
    wait_until(lambda: client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 0)
    assert kept.count_documents({"message": {"$regex": mark}}) == 2
    letter = letters(caller)["dead_letters"][0]
    assert (letter["kind"], letter["execution_id"], letter["error"]["error_code"]) == ("message", None, "internal")
    refused = caller.ask("POST", f"/dead-letters/{letter['id']}/requeue")
    assert (refused.status_code, refused.json()["error_code"]) == (409, "not_retryable")
    assert "could not be read" in refused.json()["detail"]
    assert mark not in refused.text


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x"])
def test_a_wrong_limit_is_refused(caller: Caller, limit: str) -> None:
    assert caller.get("/dead-letters", params={"limit": limit}).status_code == 400


def test_a_run_that_is_no_dead_letter_cannot_be_requeued(caller: Caller) -> None:
    completed = caller.run_agent("echo")
    caller.finished(completed)
    for unknown in (completed, "1763700000_0000000000000000", "message-none", "$where"):
        refused = caller.ask("POST", f"/dead-letters/{unknown}/requeue")
        assert (refused.status_code, refused.json()["error_code"]) == (404, "not_found")
