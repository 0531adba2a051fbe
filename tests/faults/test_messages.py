"""Task messages that are doubled, invented or unreadable: scenario 38."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

from shared.domain.execution import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER, PUBLIC_INTEGRATOR
from shared.queue.message import RUN_STEP_TASK, TaskMessage, encode_message, enqueue, list_key
from tests.api_client import RunClient
from tests.faults.inspection import count_messages, stored_run, worker_pids
from tests.stack import Stack
from tests.waiting import wait_until


def test_38_a_message_that_comes_ten_times_runs_its_step_once(stack: Stack, runs: RunClient) -> None:
    stack.stop("worker")
    run = runs.submit(seconds=0.3).execution_id
    client = stack.redis()
    message = client.lindex(list_key("default", PRIORITY_FIRST_OFFER), 0)
    assert message is not None
    for _ in range(5):
        client.lpush(list_key("default", PRIORITY_FIRST_OFFER), message)
        client.lpush(list_key("default", PRIORITY_REOFFER), message)
    stack.start("worker")
    assert runs.wait_done(run)["steps"][0]["attempts"] == 1
    wait_until(lambda: client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 0, 10, "all messages were processed")
    assert runs.wait_done(runs.submit("echo").execution_id)["status"] == "completed"
    assert len(runs.counter_lines()) == 1


def test_38_messages_for_unknown_runs_and_unreadable_messages_end_no_worker(stack: Stack, runs: RunClient) -> None:
    processes = worker_pids(stack)
    known_run = runs.submit("echo").execution_id
    runs.wait_done(known_run)
    client, now = stack.redis(), datetime.now(UTC)
    for message in (
        TaskMessage(PUBLIC_INTEGRATOR, "1763700000_0000000000000000", "counter", now),
        TaskMessage(PUBLIC_INTEGRATOR, known_run, "no-such-step", now),
        TaskMessage("nobody", known_run, "echo", now),
        TaskMessage(PUBLIC_INTEGRATOR, known_run, "echo", now),
        TaskMessage("", "$where", "a.b.$c", now),
    ):
        enqueue(client, message, "default")
    for args in ([], [1, 2, 3, 4], [None, None, None, None], ["a", "b", "c", "d"], [{"$gt": ""}] * 4, ["x"] * 9):
        client.lpush(list_key("default", PRIORITY_FIRST_OFFER), message_with(args))
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
    wait_until(lambda: client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 0, 10, "all were processed")
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
    assert worker_pids(stack) == processes


FOREIGN = (
    b"not json",
    b"123",
    b"[]",
    b'"text"',
    b"{}",
    b'{"body": 1}',
    b"\xff\xfe",
    b'{"body":"e30=","headers":{},"properties":{}}',
)


def spoilt(**changes: Any) -> bytes:
    """Return a message of Bucket's with other values in its envelope or its headers."""
    message = TaskMessage(PUBLIC_INTEGRATOR, "1763700000_0000000000000000", "none", datetime.now(UTC))
    envelope = json.loads(encode_message(message, "default", PRIORITY_FIRST_OFFER))
    for name, value in changes.items():
        place = envelope["headers"] if name in envelope["headers"] else envelope
        place[name.replace("_", "-") if name.startswith("content") else name] = value
    return json.dumps(envelope).encode()


SPOILT = (
    {"content_encoding": 5}, {"content_encoding": "nosuch"}, {"content_type": None}, {"timelimit": ["a", "b"]},
    {"timelimit": [1]}, {"id": {}}, {"task": 3}, {"stamps": "q"}, {"body": "W10="}, {"eta": "soon"}, {"expires": "x"},
)  # fmt: skip


def test_38_what_is_no_message_at_all_becomes_a_dead_letter_and_ends_no_worker(stack: Stack, runs: RunClient) -> None:
    processes, client = worker_pids(stack), stack.redis()
    # Into an idle queue, where Celery's own consumer takes it.
    for raw in (*FOREIGN, *(spoilt(**changes) for changes in SPOILT)):
        client.lpush(list_key("default", PRIORITY_FIRST_OFFER), raw)
        assert runs.wait_done(runs.submit("echo").execution_id)["status"] == "completed"
    wait_until(lambda: client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 0, 10, "all were processed")
    kept = {letter["message"] for letter in stack.mongo()["dead_letters"].find()}
    assert {raw.decode(errors="replace") for raw in FOREIGN} <= kept
    assert worker_pids(stack) == processes


def message_with(args: list[Any]) -> bytes:
    """Build a Celery message with arguments that no task message of Bucket has."""
    message = json.loads(
        encode_message(
            TaskMessage(PUBLIC_INTEGRATOR, "none", "none", datetime.now(UTC)), "default", PRIORITY_FIRST_OFFER
        )
    )
    message["body"] = base64.b64encode(json.dumps([args, {}, {}]).encode()).decode()
    return json.dumps(message).encode()


def test_38_an_unknown_task_is_dropped_and_ends_no_worker(stack: Stack, runs: RunClient) -> None:
    processes = worker_pids(stack)
    message = encode_message(
        TaskMessage(PUBLIC_INTEGRATOR, "none", "none", datetime.now(UTC)), "default", PRIORITY_FIRST_OFFER
    )
    stack.redis().lpush(
        list_key("default", PRIORITY_FIRST_OFFER), message.replace(RUN_STEP_TASK.encode(), b"nobody.knows")
    )
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
    assert worker_pids(stack) == processes


def test_38_ten_thousand_messages_of_one_step_are_processed_and_run_it_once(stack: Stack, runs: RunClient) -> None:
    stack.stop("worker")
    run = runs.submit().execution_id
    client = stack.redis()
    message = client.lindex(list_key("default", PRIORITY_FIRST_OFFER), 0)
    assert message is not None
    client.lpush(list_key("default", PRIORITY_FIRST_OFFER), *[message] * 10_000)
    stack.start("worker")
    assert runs.wait_done(run)["steps"][0]["attempts"] == 1
    wait_until(lambda: count_messages(stack) == 0, 90, "all messages were processed")
    assert runs.counter_lines_of(run) == [f"{run}:counter:1"]
    assert stored_run(stack, run)["steps"]["counter"]["offers"] == 1
