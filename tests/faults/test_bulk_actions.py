"""Bulk actions and requeues through the death of what carries them out: each run is counted and retried once."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from shared.domain.execution import PRIORITY_FIRST_OFFER
from shared.queue.message import list_key
from tests.api_client import RunClient
from tests.faults.inspection import kill_children, restart_with
from tests.stack import Stack
from tests.waiting import descendants, wait_until

FAILING = {
    "config": {"name": "failing", "steps": [{"agent": "raiser", "retry": "none"}]},
    "input_data": {"kind": "TransientError", "message": "no"},
}
WAITING = {"basket_name": "working_test", "run_after_s": 3600}
ECHO = {"config": {"agents": ["echo"]}, "input_data": {}}


def post(stack: Stack, path: str, body: Any = None, **headers: str) -> requests.Response:
    return requests.post(f"{stack.url}{path}", json=body, headers=headers, timeout=20)


def submit(stack: Stack, item: dict[str, Any], number: int, tag: str, status: str) -> list[str]:
    """Submit runs in one batch and wait until all have a status; return their ids."""
    reply = post(stack, "/run-basket/batch", {"items": [item | {"tags": [tag]}] * number}).json()
    matching = {"tags": tag, "status": status}
    executions = stack.mongo().executions
    wait_until(lambda: executions.count_documents(matching) == number, 60, f"all are {status}")
    return [each["execution_id"] for each in reply["items"]]


def begin(stack: Stack, action: str, tag: str) -> str:
    response = post(stack, "/executions/actions", {"action": action, "filter": {"tag": tag}})
    assert response.status_code == 202, response.text
    return str(response.json()["execution_id"])


def test_a_worker_killed_twice_midway_through_a_bulk_retry_retries_each_run_once(stack: Stack, runs: RunClient) -> None:
    executions = stack.mongo().executions
    ids = submit(stack, FAILING, 200, "killed", "failed")
    action = begin(stack, "retry", "killed")
    for number in (20, 110):
        wait_until(lambda: executions.count_documents({"retry_of": {"$in": ids}}) >= number, 40, "some are retried")  # noqa: B023
        kill_children(stack)

    poll = runs.wait_done(action, 60)
    assert poll["result"] == {"matched": 200, "done": 200, "failed": 0, "skipped": 0, "dry_run": False}, poll
    retried = [run["retry_of"] for run in executions.find({"retry_of": {"$in": ids}})]
    assert sorted(retried) == sorted(ids), "each once"


@pytest.mark.parametrize(
    ("action", "item", "status"),
    [
        ("cancel", WAITING, "scheduled"),
        ("retry", FAILING, "failed"),
        ("erase", ECHO, "completed"),
        ("dismiss", FAILING, "failed"),
    ],
)
def test_a_run_that_was_done_just_before_a_death_is_counted_once(
    stack: Stack, runs: RunClient, action: str, item: dict[str, Any], status: str
) -> None:
    tag = f"died-{action}"
    submit(stack, item, 5, tag, status)
    restart_with(stack, "worker", BUCKET_FAULTS="worker.bulk_run_done=kill")
    children = descendants(stack.pid("worker"))
    execution_id = begin(stack, action, tag)
    wait_until(lambda: children - descendants(stack.pid("worker")), 15, "its child died")
    stack.kill("worker")
    stack.start("worker")

    poll = runs.wait_done(execution_id, 40)
    assert poll["result"] == {"matched": 5, "done": 5, "failed": 0, "skipped": 0, "dry_run": False}, poll


def test_a_message_of_a_bulk_action_that_comes_twice_does_nothing_twice(stack: Stack, runs: RunClient) -> None:
    ids = submit(stack, FAILING, 40, "twice", "failed")
    queue = list_key("default", 0)
    stack.stop("worker")
    try:
        action = begin(stack, "retry", "twice")
        (message,) = stack.redis().lrange(queue, 0, -1)  # type: ignore[misc]
        stack.redis().lpush(queue, message)
        assert stack.redis().llen(list_key("default", PRIORITY_FIRST_OFFER)) == 0
    finally:
        stack.start("worker")

    assert runs.wait_done(action, 40)["result"]["done"] == 40
    assert stack.mongo().executions.count_documents({"retry_of": {"$in": ids}}) == 40


def test_an_api_that_dies_between_the_new_run_and_the_letter_has_requeued_it(stack: Stack, runs: RunClient) -> None:
    (letter,) = submit(stack, FAILING, 1, "requeued", "failed")
    restart_with(stack, "api", BUCKET_FAULTS="api.inserted=kill")
    executions = stack.mongo().executions

    def dies() -> bool:
        try:
            post(stack, f"/dead-letters/{letter}/requeue")
        except requests.ConnectionError:
            return executions.count_documents({"requeue_of": letter}) > 0
        return False

    wait_until(dies, 10, "the API dies of the requeue")
    restart_with(stack, "api")
    listed = requests.get(f"{stack.url}/dead-letters?basket=failing&limit=1000", timeout=20).json()["dead_letters"]
    assert letter not in {each["id"] for each in listed}
    again = post(stack, f"/dead-letters/{letter}/requeue")
    assert (again.status_code, again.json()["error_code"]) == (409, "already_requeued")
    assert runs.wait_done(again.json()["requeued_as"])["status"] == "failed", "it was offered all the same"
    assert executions.count_documents({"retry_of": letter}) == 1
