"""Dead letters that leave their list: requeued once, replaced if that fails too, dismissed; and the filters."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.domain.execution import PRIORITY_FIRST_OFFER
from shared.queue.message import list_key
from tests.acceptance.client import ApiClient
from tests.acceptance.test_retries import failed_run
from tests.waiting import wait_until


def letter_ids(caller: ApiClient, **query: Any) -> list[str]:
    """Return the ids of all letters of a list, read page by page."""
    ids: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        response = caller.get("/dead-letters", params=query | cursor)
        assert response.status_code == 200, response.text
        ids += [letter["id"] for letter in response.json()["dead_letters"]]
        cursor = {"cursor": response.json()["next_cursor"]}
        if cursor["cursor"] is None:
            return ids


def requeue(caller: ApiClient, letter: str, key: str | None = None) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return caller.request("POST", f"/dead-letters/{letter}/requeue", headers=headers)


def dismiss(caller: ApiClient, letter: str) -> Any:
    return caller.request("POST", f"/dead-letters/{letter}/dismiss")


def broken_run(caller: ApiClient, kind: str, basket: str) -> str:
    """Return the id of a run in which the agent ``raiser`` has failed."""
    config = {"name": basket, "steps": [{"agent": "raiser", "retry": "none"}]}
    body = {"config": config, "input_data": {"kind": kind, "message": "no"}}
    run: str = caller.post("/run-basket", body).json()["execution_id"]
    assert caller.wait_done(run)["status"] == "failed"
    return run


def test_a_letter_is_requeued_once(caller: ApiClient, tmp_path: Path) -> None:
    letter = failed_run(caller, tmp_path)
    first = requeue(caller, letter).json()["execution_id"]
    for key in (None, uuid.uuid4().hex):
        again = requeue(caller, letter, key)
        assert (again.status_code, again.json()["error_code"]) == (409, "already_requeued")
        assert again.json()["requeued_as"] == first
        assert first in again.json()["detail"]
    assert dismiss(caller, letter).json()["error_code"] == "already_requeued"
    assert len(caller.get("/executions", params={"retry_of": letter}).json()["executions"]) == 1


def test_a_repeated_requeue_with_the_same_key_gets_the_same_run(caller: ApiClient, tmp_path: Path) -> None:
    letter, key = failed_run(caller, tmp_path), uuid.uuid4().hex
    first, second = requeue(caller, letter, key), requeue(caller, letter, key)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json()["execution_id"] == first.json()["execution_id"]
    assert second.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("has_keys", [False, True])
def test_of_many_requeues_at_the_same_moment_one_makes_a_run(
    caller: ApiClient, tmp_path: Path, *, has_keys: bool
) -> None:
    letter = failed_run(caller, tmp_path)
    keys = [uuid.uuid4().hex if has_keys else None for _ in range(12)]
    with ThreadPoolExecutor(12) as threads:
        replies = list(threads.map(lambda key: requeue(caller, letter, key), keys))
    assert sorted(reply.status_code for reply in replies) == [202, *[409] * 11]
    made = {reply.json().get("execution_id") or reply.json()["requeued_as"] for reply in replies}
    listed = caller.get("/executions", params={"retry_of": letter}).json()["executions"]
    assert {row["execution_id"] for row in listed} == made
    assert letter not in letter_ids(caller)


def test_of_many_requeues_with_one_key_at_the_same_moment_all_get_the_same_run(
    caller: ApiClient, tmp_path: Path
) -> None:
    letter, key = failed_run(caller, tmp_path), uuid.uuid4().hex
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: requeue(caller, letter, key), range(8)))
    assert {reply.status_code for reply in replies} <= {202, 503}  # 503: no majority knew the first one yet
    assert len({reply.json()["execution_id"] for reply in replies if reply.status_code == 202}) == 1


def test_a_requeued_run_that_fails_too_replaces_the_letter(caller: ApiClient, tmp_path: Path) -> None:
    letter = failed_run(caller, tmp_path, failures=2)
    second = requeue(caller, letter).json()["execution_id"]
    assert caller.wait_done(second)["status"] == "failed"
    ids = letter_ids(caller)
    assert (second in ids, letter in ids) == (True, False)
    third = requeue(caller, second).json()["execution_id"]
    assert caller.wait_done(third)["status"] == "completed"
    assert {letter, second, third}.isdisjoint(letter_ids(caller))


def test_a_retry_leaves_the_letter_and_does_not_keep_it_from_being_requeued(caller: ApiClient, tmp_path: Path) -> None:
    letter = failed_run(caller, tmp_path, failures=2)
    retried = caller.request("POST", f"/executions/{letter}/retry").json()["execution_id"]
    caller.wait_done(retried)
    assert {letter, retried} <= set(letter_ids(caller))
    assert requeue(caller, letter).status_code == 202


def test_a_dismissed_letter_leaves_the_list_and_its_run_stays(caller: ApiClient, tmp_path: Path) -> None:
    letter = failed_run(caller, tmp_path)
    before = caller.poll(letter)
    first, second = dismiss(caller, letter), dismiss(caller, letter)
    assert (first.status_code, second.status_code, first.json()) == (200, 200, second.json())
    assert (first.json()["id"], first.json()["dismissed_at"] >= before["finished_at"]) == (letter, True)
    assert letter not in letter_ids(caller)
    assert caller.poll(letter) == before
    refused = requeue(caller, letter)
    assert (refused.status_code, refused.json()["error_code"]) == (409, "not_retryable")
    retried = caller.request("POST", f"/executions/{letter}/retry")
    assert caller.wait_done(retried.json()["execution_id"])["status"] == "completed"


def test_a_dismissed_message_is_listed_again_only_if_it_comes_again(caller: ApiClient) -> None:
    message, queue = f"{{broken {uuid.uuid4().hex}", list_key("default", PRIORITY_FIRST_OFFER)
    stored = caller.stack.mongo().dead_letters
    caller.stack.redis().lpush(queue, message)
    wait_until(lambda: stored.count_documents({"message": message}) == 1, what="the message is a dead letter")
    letter = stored.find_one({"message": message})["_id"]  # type: ignore[index]
    assert letter in letter_ids(caller, error_code="internal")
    assert dismiss(caller, letter).json()["kind"] == "message"
    assert letter not in letter_ids(caller)
    caller.stack.redis().lpush(queue, message)
    wait_until(lambda: letter in letter_ids(caller), what="the message is listed again")
    assert dismiss(caller, letter).status_code == 200


def test_letters_are_filtered_by_code_agent_and_basket(caller: ApiClient, tmp_path: Path) -> None:
    flaky = failed_run(caller, tmp_path)
    basket = f"filtered {uuid.uuid4().hex[:8]}"
    raised = [broken_run(caller, "TransientError", basket) for _ in range(3)]
    code = caller.poll(flaky)["error"]["error_code"]
    assert letter_ids(caller, basket=basket, limit=2) == raised[::-1]
    assert set(raised) <= set(letter_ids(caller, agent="raiser", limit=1000))
    assert flaky not in letter_ids(caller, agent="raiser", limit=1000)
    assert flaky in letter_ids(caller, error_code=code, agent="flaky", basket="again", limit=1000)
    assert letter_ids(caller, basket=basket, agent="flaky") == []
    assert letter_ids(caller, error_code="nothing") == []


def test_a_cursor_is_bound_to_its_filters_and_an_unknown_filter_is_refused(caller: ApiClient) -> None:
    basket = f"bound {uuid.uuid4().hex[:8]}"
    for _ in range(2):
        broken_run(caller, "TransientError", basket)
    cursor = caller.get("/dead-letters", params={"basket": basket, "limit": 1}).json()["next_cursor"]
    for other in ({}, {"basket": "other"}, {"agent": "raiser"}):
        refused = caller.get("/dead-letters", params={"cursor": cursor, **other})
        assert (refused.status_code, refused.json()["error_code"]) == (400, "cursor_invalid")
    unknown = caller.get("/dead-letters", params={"eror_code": "x"})
    assert (unknown.status_code, "error_code" in unknown.json()["detail"]) == (400, True)
