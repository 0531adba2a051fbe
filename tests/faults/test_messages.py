"""Messages that are doubled, made up or no messages at all: scenario 38."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.queue.message import (
    PRIORITY_FIRST_OFFER,
    PRIORITY_REOFFER,
    RUN_STEP_TASK,
    TaskMessage,
    encode_message,
    enqueue,
    list_key,
)
from tests.api_client import Runs
from tests.faults.inspection import messages, stored, workers
from tests.stack import Stack
from tests.waiting import wait_until


def test_38_a_bell_that_rings_ten_times_runs_its_step_once(stack: Stack, runs: Runs) -> None:
    stack.stop("worker")
    run = runs.submit(seconds=0.3).execution_id
    client = stack.redis()
    bell = client.lindex(list_key("default", PRIORITY_FIRST_OFFER), 0)
    assert bell is not None
    for _ in range(5):
        client.lpush(list_key("default", PRIORITY_FIRST_OFFER), bell)
        client.lpush(list_key("default", PRIORITY_REOFFER), bell)
    stack.start("worker")
    assert runs.done(run)["steps"][0]["attempts"] == 1
    wait_until(lambda: client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 0, 10, "all bells were answered")
    assert runs.done(runs.submit("echo").execution_id)["status"] == "completed"
    assert len(runs.counted()) == 1


def test_38_bells_for_nothing_and_messages_that_are_no_bells_end_no_worker(stack: Stack, runs: Runs) -> None:
    processes = workers(stack)
    known = runs.submit("echo").execution_id
    runs.done(known)
    client, now = stack.redis(), datetime.now(UTC)
    for bell in (
        TaskMessage(PUBLIC_INTEGRATOR, "1763700000_0000000000000000", "counter", now),
        TaskMessage(PUBLIC_INTEGRATOR, known, "no-such-step", now),
        TaskMessage("nobody", known, "echo", now),
        TaskMessage(PUBLIC_INTEGRATOR, known, "echo", now),
        TaskMessage("", "$where", "a.b.$c", now),
    ):
        enqueue(client, bell, "default")
    for args in ([], [1, 2, 3, 4], [None, None, None, None], ["a", "b", "c", "d"], [{"$gt": ""}] * 4, ["x"] * 9):
        client.lpush(list_key("default", PRIORITY_FIRST_OFFER), message_with(args))
    assert runs.done(runs.submit().execution_id)["status"] == "completed"
    wait_until(lambda: client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 0, 10, "all were answered")
    assert runs.done(runs.submit().execution_id)["status"] == "completed"
    assert workers(stack) == processes


def message_with(args: list[Any]) -> bytes:
    """A message of Celery's form with arguments that no bell has."""
    message = json.loads(
        encode_message(
            TaskMessage(PUBLIC_INTEGRATOR, "none", "none", datetime.now(UTC)), "default", PRIORITY_FIRST_OFFER
        )
    )
    message["body"] = base64.b64encode(json.dumps([args, {}, {}]).encode()).decode()
    return json.dumps(message).encode()


def test_38_bytes_that_are_no_json_end_a_worker_by_celerys_design_and_the_next_one_goes_on(
    stack: Stack, runs: Runs
) -> None:
    stack.redis().lpush(list_key("default", PRIORITY_FIRST_OFFER), b"\x00 no json")
    wait_until(lambda: not stack.is_alive("worker"), 10, "Celery ends its process")
    stack.start("worker")
    assert runs.done(runs.submit().execution_id)["status"] == "completed"


def test_38_a_task_that_nobody_knows_is_dropped_and_ends_no_worker(stack: Stack, runs: Runs) -> None:
    processes = workers(stack)
    message = encode_message(
        TaskMessage(PUBLIC_INTEGRATOR, "none", "none", datetime.now(UTC)), "default", PRIORITY_FIRST_OFFER
    )
    stack.redis().lpush(
        list_key("default", PRIORITY_FIRST_OFFER), message.replace(RUN_STEP_TASK.encode(), b"nobody.knows")
    )
    assert runs.done(runs.submit().execution_id)["status"] == "completed"
    assert workers(stack) == processes


def test_38_ten_thousand_bells_of_one_step_are_answered_and_run_it_once(stack: Stack, runs: Runs) -> None:
    stack.stop("worker")
    run = runs.submit().execution_id
    client = stack.redis()
    bell = client.lindex(list_key("default", PRIORITY_FIRST_OFFER), 0)
    assert bell is not None
    client.lpush(list_key("default", PRIORITY_FIRST_OFFER), *[bell] * 10_000)
    stack.start("worker")
    assert runs.done(run)["steps"][0]["attempts"] == 1
    wait_until(lambda: messages(stack) == 0, 90, "all bells were answered")
    assert runs.counted_of(run) == [f"{run}:counter:1"]
    assert stored(stack, run)["steps"]["counter"]["offers"] == 1
