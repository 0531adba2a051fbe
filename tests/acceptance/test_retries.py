"""Retries of runs: by id or as a dead letter; an idempotency key returns its run whatever happened since."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.domain.execution import PRIORITY_FIRST_OFFER, PUBLIC_INTEGRATOR
from shared.queue.message import TaskMessage, encode_message, list_key
from tests.acceptance.client import ApiClient
from tests.tampered_cursors import tampered_variants
from tests.waiting import wait_until


def counted_then_flaky(tmp_path: Path, failures: int = 1) -> dict[str, Any]:
    """Return the body of a run: a counter, then a step that fails for good the first ``failures`` times."""
    flaky = {"path": str(tmp_path / "tries"), "failures": failures}
    steps = [
        {"agent": "counter", "input": {"file": str(tmp_path / "counted")}},
        {"agent": "flaky", "needs": ["counter"], "input": flaky, "retry": "none"},
        {"id": "last", "agent": "echo", "needs": ["flaky"]},
    ]
    return {"config": {"name": "again", "steps": steps}, "tags": ["x"], "metadata": {"order": 7}}


def failed_run(caller: ApiClient, tmp_path: Path, failures: int = 1) -> str:
    response = caller.post("/run-basket", counted_then_flaky(tmp_path, failures), X_Request_ID="the-first")
    execution_id: str = response.json()["execution_id"]
    assert caller.wait_done(execution_id)["status"] == "failed"
    return execution_id


def count_runs(tmp_path: Path) -> int:
    return len((tmp_path / "counted").read_text().splitlines())


def test_a_retry_reuses_finished_steps_and_names_the_first_run(caller: ApiClient, tmp_path: Path) -> None:
    first = failed_run(caller, tmp_path)
    before = caller.poll(first)
    response = caller.post(f"/executions/{first}/retry", {"from": "failed", "form": 1}, X_Request_ID="the-second")
    body = response.json()
    assert response.status_code == 202, response.text
    second = body["execution_id"]
    assert second != first
    assert (body["status"], body["done"], body["retry_of"], body["request_id"]) == (
        "queued", False, first, "the-second",
    )  # fmt: skip
    assert response.headers["Location"] == body["status_url"] == f"/execution-logs/{second}"
    assert response.headers["ETag"] == f'W/"{second}.1"'
    assert int(response.headers["Retry-After"]) >= 1
    assert body["warnings"] == ["unknown field 'form' was ignored; did you mean from?"]

    view = caller.wait_done(second)
    assert (view["status"], view["retry_of"], view["result"]) == ("completed", first, {"last": {"tries": 2}})
    assert (view["tags"], view["metadata"], view["basket_name"]) == (["x"], {"order": 7}, "again")
    assert view["outputs"]["counter"] == before["outputs"]["counter"]
    assert count_runs(tmp_path) == 1, "finished steps did not run again"
    assert caller.get(f"/executions/{second}/outputs/counter").json() == before["outputs"]["counter"]
    assert caller.poll(first) == before, "the first run stays as it ended"


def test_a_retry_shows_its_reused_steps_at_once(caller: ApiClient, tmp_path: Path) -> None:
    first = failed_run(caller, tmp_path, failures=2)
    second = caller.request("POST", f"/executions/{first}/retry").json()["execution_id"]
    view = caller.poll(second)
    assert view["steps"][0]["status"] == "completed"
    assert view["outputs"]["counter"]["file"] == str(tmp_path / "counted")
    assert caller.wait_done(second)["status"] == "failed"
    third = caller.request("POST", f"/api/v1/executions/{second}/retry")
    assert third.json()["status_url"].startswith("/api/v1/")
    view = caller.wait_done(third.json()["execution_id"])
    assert (view["status"], view["retry_of"]) == ("completed", second)
    assert count_runs(tmp_path) == 1


def test_a_retry_from_the_start_runs_every_step_again_also_of_a_completed_run(
    caller: ApiClient, tmp_path: Path
) -> None:
    first = failed_run(caller, tmp_path)
    second = caller.post(f"/executions/{first}/retry", {"from": "start"}).json()["execution_id"]
    assert caller.wait_done(second)["status"] == "completed"
    assert count_runs(tmp_path) == 2
    assert caller.request("POST", f"/executions/{second}/retry").json()["error_code"] == "not_retryable"
    third = caller.post(f"/executions/{second}/retry", {"from": "start"})
    assert caller.wait_done(third.json()["execution_id"])["status"] == "completed"


def test_outputs_stored_outside_the_execution_are_copied_too(caller: ApiClient, tmp_path: Path) -> None:
    flaky = {"path": str(tmp_path / "tries"), "failures": 1}
    steps = [
        {"agent": "big", "input": {"bytes": 2_000_000}},
        {"agent": "flaky", "needs": ["big"], "input": flaky, "retry": "none"},
    ]
    first = caller.post("/run-basket", {"config": {"steps": steps}}).json()["execution_id"]
    assert caller.wait_done(first)["status"] == "failed"
    second = caller.request("POST", f"/executions/{first}/retry").json()["execution_id"]
    assert caller.wait_done(second)["status"] == "completed"
    output = caller.get(f"/executions/{second}/outputs/big")
    assert (output.status_code, len(output.json()["text"])) == (200, 2_000_000)


def test_a_cancelled_run_can_be_retried(caller: ApiClient) -> None:
    first = caller.submit_agent("sleeper", seconds=60, slice_s=0.01)
    wait_until(lambda: caller.poll(first)["status"] == "running")
    caller.request("POST", f"/executions/{first}/cancel")
    assert caller.wait_done(first)["done"]
    if caller.poll(first)["status"] == "cancelled":  # else it was done before the cancel reached it
        second = caller.request("POST", f"/executions/{first}/retry").json()["execution_id"]
        caller.request("POST", f"/executions/{second}/cancel")
        assert caller.wait_done(second)["retry_of"] == first


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"from": "middle"}, 400, "validation_failed"),
        ({"from": 1}, 400, "validation_failed"),
        ({"from": 0}, 400, "validation_failed"),
        ([], 400, "validation_failed"),
        ({}, 409, "not_retryable"),
        ({"from": "failed"}, 409, "not_retryable"),
    ],
    ids=str,
)
def test_an_impossible_retry_is_refused_and_stores_nothing(
    caller: ApiClient, body: Any, status: int, code: str
) -> None:
    completed = caller.submit_agent("echo")
    caller.wait_done(completed)
    before = caller.document_counts()
    refused = caller.post(f"/executions/{completed}/retry", body)
    assert (refused.status_code, refused.json()["error_code"]) == (status, code)
    if status == 400 and isinstance(body, dict):
        assert refused.json()["details"][0]["pointer"] == "/from"
    assert caller.document_counts() == before


def test_an_unfinished_run_cannot_be_retried(caller: ApiClient) -> None:
    run = caller.post("/run-agent", {"agent_name": "echo", "input_data": {}, "run_after_s": 600}).json()["execution_id"]
    for at in ("failed", "start"):
        refused = caller.post(f"/executions/{run}/retry", {"from": at})
        assert (refused.status_code, refused.json()["error_code"]) == (409, "not_retryable")
        assert "scheduled" in refused.json()["detail"]
    caller.request("POST", f"/executions/{run}/cancel")


@pytest.mark.parametrize("run", ["1763700000_0000000000000000", "None", "no-id", "$where"])
def test_an_unknown_run_cannot_be_retried(caller: ApiClient, run: str) -> None:
    refused = caller.request("POST", f"/executions/{run}/retry")
    assert (refused.status_code, refused.json()["error_code"]) == (404, "execution_not_found")


def test_one_key_makes_one_retry(caller: ApiClient, tmp_path: Path) -> None:
    first = failed_run(caller, tmp_path)
    key = uuid.uuid4().hex
    responses = [caller.post(f"/executions/{first}/retry", {}, Idempotency_Key=key) for _ in range(2)]
    responses.append(caller.post(f"/api/v1/executions/{first}/retry", {}, Idempotency_Key=key))
    responses.append(caller.request("POST", f"/executions/{first}/retry", headers={"Idempotency-Key": key}))
    assert len({response.json()["execution_id"] for response in responses}) == 1
    assert [response.headers.get("Idempotency-Replayed") for response in responses] == [None, "true", "true", "true"]
    caller.wait_done(responses[0].json()["execution_id"])
    reused = caller.post(f"/executions/{first}/retry", {"from": "start"}, Idempotency_Key=key)
    assert (reused.status_code, reused.json()["error_code"]) == (422, "idempotency_key_reused")
    of_another_run = caller.post(f"/executions/{responses[0].json()['execution_id']}/retry", {}, Idempotency_Key=key)
    assert of_another_run.status_code == 422, "the run is part of the request"


def test_a_key_returns_its_run_after_its_basket_was_deleted(caller: ApiClient) -> None:
    name = f"short lived {uuid.uuid4().hex[:8]}"
    assert caller.post("/create-basket", {"name": name, "agents": ["echo"]}).status_code == 201
    first = caller.post("/run-basket", {"basket_name": name}, Idempotency_Key=name)
    caller.wait_done(first.json()["execution_id"])
    assert caller.request("DELETE", f"/baskets/{name}").status_code == 200
    again = caller.post("/run-basket", {"basket_name": name}, Idempotency_Key=name)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert again.json()["execution_id"] == first.json()["execution_id"]
    other = caller.post("/run-basket", {"basket_name": name, "tags": ["b"]}, Idempotency_Key=name)
    assert (other.status_code, other.json()["error_code"]) == (422, "idempotency_key_reused")
    wait_until(lambda: caller.post("/run-basket", {"basket_name": name}).status_code == 404, 6, "it is not cached")


def dead_letters(caller: ApiClient, **query: Any) -> dict[str, Any]:
    response = caller.get("/dead-letters", params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


def test_a_run_that_failed_for_good_leaves_the_dead_letters_once_it_is_requeued(
    caller: ApiClient, tmp_path: Path
) -> None:
    run = failed_run(caller, tmp_path)
    letter = dead_letters(caller, limit=1)["dead_letters"][0]
    view = caller.poll(run)
    assert letter == {
        "id": run, "kind": "execution", "execution_id": run, "basket_name": "again", "error": view["error"],
        "finished_at": view["finished_at"], "retried_as": [],
    }  # fmt: skip
    response = caller.request("POST", f"/dead-letters/{run}/requeue")
    assert (response.status_code, response.json()["retry_of"]) == (202, run)
    again = response.json()["execution_id"]
    assert caller.wait_done(again)["status"] == "completed"
    assert count_runs(tmp_path) == 1
    assert run not in {letter["id"] for letter in dead_letters(caller)["dead_letters"]}


def test_dead_letters_are_paged_newest_first(caller: ApiClient, tmp_path: Path) -> None:
    run_ids = []
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        run_ids.append(failed_run(caller, tmp_path / str(number)))
    listed_ids: list[str] = []
    cursor: dict[str, Any] = {}
    while len(listed_ids) < 5:
        page = dead_letters(caller, limit=2, **cursor)
        assert len(page["dead_letters"]) <= 2
        listed_ids += [letter["id"] for letter in page["dead_letters"]]
        cursor = {"cursor": page["next_cursor"]}
    # By finished_at: two worker processes wrote them, and their clocks differ by the time that a clock read takes.
    end_order = {run: (caller.poll(run)["finished_at"], run) for run in run_ids}
    assert listed_ids[:5] == sorted(run_ids, key=end_order.__getitem__, reverse=True)
    assert dead_letters(caller, limit=1000)["next_cursor"] is None


@pytest.mark.parametrize(
    "cursor", ["", "made-up", "MS5h", "AAAA", "ü", "x" * 300, "MS4wMDAwMDAwMDAwXzAwMDAwMDAwMDAwMDAwMDA"]
)
def test_a_made_up_cursor_is_refused(caller: ApiClient, cursor: str) -> None:
    refused = caller.get("/dead-letters", params={"cursor": cursor})
    assert (refused.status_code, refused.json()["error_code"]) == (400, "cursor_invalid")


def test_a_changed_cursor_is_refused(caller: ApiClient, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        failed_run(caller, tmp_path / name)
    cursor = dead_letters(caller, limit=1)["next_cursor"]
    for other in tampered_variants(cursor, "Aw_"):
        refused = caller.get("/dead-letters", params={"cursor": other})
        assert (refused.status_code, refused.json()["error_code"]) == (400, "cursor_invalid"), other
    assert caller.get("/executions", params={"cursor": cursor}).json()["error_code"] == "cursor_invalid"


def test_an_unreadable_message_is_a_dead_letter_and_a_message_for_an_unknown_run_is_not(caller: ApiClient) -> None:
    marker = uuid.uuid4().hex
    client = caller.stack.redis()
    real = json.loads(
        encode_message(
            TaskMessage(PUBLIC_INTEGRATOR, "none", "none", datetime.now(UTC)), "default", PRIORITY_FIRST_OFFER
        )
    )
    for args in (
        [marker, 2, 3, 4],
        [marker, "b"],
        [PUBLIC_INTEGRATOR, "1763700000_0000000000000000", marker, 1],
        [marker, 2, 3, 4],
    ):
        body = base64.b64encode(json.dumps([args, {}, {}]).encode()).decode()
        client.lpush(list_key("default", PRIORITY_FIRST_OFFER), json.dumps(real | {"body": body}))
    collection = caller.stack.mongo().dead_letters
    wait_until(
        lambda: {d["times"] for d in collection.find({"message": {"$regex": marker}})} == {1, 2}, what="both are stored"
    )
    wait_until(lambda: client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 0)
    assert collection.count_documents({"message": {"$regex": marker}}) == 2
    letter = dead_letters(caller)["dead_letters"][0]
    assert (letter["kind"], letter["execution_id"], letter["error"]["error_code"]) == ("message", None, "internal")
    refused = caller.request("POST", f"/dead-letters/{letter['id']}/requeue")
    assert (refused.status_code, refused.json()["error_code"]) == (409, "not_retryable")
    assert "could not be read" in refused.json()["detail"]
    assert marker not in refused.text


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x"])
def test_an_invalid_limit_is_refused(caller: ApiClient, limit: str) -> None:
    assert caller.get("/dead-letters", params={"limit": limit}).status_code == 400


def test_a_run_that_is_not_a_dead_letter_cannot_be_requeued(caller: ApiClient) -> None:
    completed = caller.submit_agent("echo")
    caller.wait_done(completed)
    for unknown in (completed, "1763700000_0000000000000000", "message-none", "$where"):
        refused = caller.request("POST", f"/dead-letters/{unknown}/requeue")
        assert (refused.status_code, refused.json()["error_code"]) == (404, "not_found")
