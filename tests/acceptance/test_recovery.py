"""Processes that die, freeze or are handed nonsense: an accepted run still ends, with each step recorded once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.domain.execution import PUBLIC
from shared.queue.bell import AGAIN, FIRST, Bell, list_of, message_of, ring
from tests.processes import descendants, wait_until
from tests.runs import AGENTS, Runs
from tests.stack import Stack


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture
def runs(stack: Stack, tmp_path: Path) -> Iterator[Runs]:
    yield Runs(stack, tmp_path / "counted")
    stack.mend()


def stored(stack: Stack, execution_id: str) -> dict[str, Any]:
    found = stack.mongo().executions.find_one({"_id": execution_id})
    assert found is not None
    return found


def lines_of(poll: dict[str, Any], event: str) -> list[str]:
    """The steps that a run's lines of one event are about."""
    return [line["step"] for line in poll["logs"] if line["event"] == event]


def restart_with(stack: Stack, name: str, **settings: str) -> None:
    stack.stop(name)
    stack.start(name, **settings)


def test_an_api_that_dies_after_its_insert_has_accepted_the_run(stack: Stack, runs: Runs) -> None:
    restart_with(stack, "api", BUCKET_FAULTS="api.inserted=kill")
    with pytest.raises(requests.ConnectionError):
        runs.submit(key="killed")
    with pytest.raises(requests.ConnectionError):
        runs.submit()
    restart_with(stack, "api")

    again = runs.submit(key="killed")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert runs.done(again.execution_id)["status"] == "completed"
    wait_until(lambda: len(runs.counted()) == 2, 10, "the run without a key, which nobody can poll, completes too")
    assert stack.mongo().executions.count_documents({"idempotency.key": "killed"}) == 1


@pytest.mark.parametrize("point", ["worker.claimed", "worker.agent_returned", "worker.written"])
def test_a_worker_child_that_is_killed_costs_an_attempt_and_no_run(stack: Stack, runs: Runs, point: str) -> None:
    restart_with(stack, "worker", BUCKET_FAULTS=f"{point}=kill")
    children = descendants(stack.pid("worker"))
    run = runs.submit("counter", "counter").execution_id
    # Its child is replaced by the pool and would die of each attempt anew; the third loss would end the run.
    wait_until(lambda: children - descendants(stack.pid("worker")), 15, "its child died")
    stack.kill("worker")  # asked to stop, it would wait for the lost child
    stack.start("worker")

    poll = runs.done(run)
    steps = stored(stack, run)["steps"]
    lost = "counter-2" if point == "worker.written" else "counter"
    assert poll["status"] == "completed"
    assert lines_of(poll, "step.completed") == ["counter", "counter-2"], "each is recorded once"
    assert {name: step["losses"] > 0 for name, step in steps.items()} == {
        name: name == lost for name in ("counter", "counter-2")
    }
    assert {step["step"]: step["attempts"] for step in poll["steps"]} == {
        name: steps[name]["losses"] + 1 for name in steps
    }
    assert lines_of(poll, "step.worker_lost") == [lost] * steps[lost]["losses"]


def test_a_worker_killed_whole_in_the_middle_of_a_step_loses_no_run(stack: Stack, runs: Runs) -> None:
    run = runs.submit("counter", "counter", seconds=0.5).execution_id
    runs.begun(run)
    stack.kill("worker")
    stack.start("worker")
    poll = runs.done(run)
    assert poll["status"] == "completed"
    assert [step["attempts"] for step in poll["steps"]] == [2, 1]
    assert [line.split(":")[1:] for line in runs.counted()] == [["counter", "1"], ["counter", "2"], ["counter-2", "1"]]


def test_fifty_queued_runs_survive_that_redis_forgets_everything(stack: Stack, runs: Runs) -> None:
    stack.stop("worker")
    queued = [runs.submit().execution_id for _ in range(50)]
    stack.redis().flushall()
    stack.start("worker")
    assert {poll["status"] for poll in runs.all_done(queued)} == {"completed"}
    assert sorted(line.split(":")[0] for line in runs.counted()) == sorted(queued), "each ran once"


def test_a_bell_that_rings_ten_times_runs_its_step_once(stack: Stack, runs: Runs) -> None:
    stack.stop("worker")
    run = runs.submit(seconds=0.3).execution_id
    client = stack.redis()
    bell = client.lindex(list_of("default", FIRST), 0)
    assert bell is not None
    for _ in range(5):
        client.lpush(list_of("default", FIRST), bell)
        client.lpush(list_of("default", AGAIN), bell)
    stack.start("worker")
    assert runs.done(run)["steps"][0]["attempts"] == 1
    wait_until(lambda: client.llen(list_of("default", FIRST)) == 0, 10, "all bells were answered")
    assert runs.done(runs.submit("echo").execution_id)["status"] == "completed"
    assert len(runs.counted()) == 1


def test_bells_for_nothing_and_messages_that_are_no_bells_end_no_worker(stack: Stack, runs: Runs) -> None:
    processes = workers(stack)
    known = runs.submit("echo").execution_id
    runs.done(known)
    client, now = stack.redis(), datetime.now(UTC)
    for bell in (
        Bell(PUBLIC, "1763700000_0000000000000000", "counter", now),
        Bell(PUBLIC, known, "no-such-step", now),
        Bell("nobody", known, "echo", now),
        Bell(PUBLIC, known, "echo", now),
        Bell("", "$where", "a.b.$c", now),
    ):
        ring(client, bell, "default")
    for args in ([], [1, 2, 3, 4], [None, None, None, None], ["a", "b", "c", "d"], [{"$gt": ""}] * 4, ["x"] * 9):
        client.lpush(list_of("default", FIRST), message_with(args))
    assert runs.done(runs.submit().execution_id)["status"] == "completed"
    wait_until(lambda: client.llen(list_of("default", FIRST)) == 0, 10, "all were answered")
    assert runs.done(runs.submit().execution_id)["status"] == "completed"
    assert workers(stack) == processes


def message_with(args: list[Any]) -> bytes:
    """A message of Celery's form with arguments that no bell has."""
    import base64

    message = json.loads(message_of(Bell(PUBLIC, "none", "none", datetime.now(UTC)), "default", FIRST))
    message["body"] = base64.b64encode(json.dumps([args, {}, {}]).encode()).decode()
    return json.dumps(message).encode()


def workers(stack: Stack) -> set[int]:
    """The worker's main process and its children."""
    return {stack.pid("worker"), *descendants(stack.pid("worker"))}


def test_bytes_that_are_no_json_end_a_worker_by_celerys_design_and_the_next_one_goes_on(
    stack: Stack, runs: Runs
) -> None:
    stack.redis().lpush(list_of("default", FIRST), b"\x00 no json")
    wait_until(lambda: not stack.is_alive("worker"), 10, "Celery ends its process")
    stack.start("worker")
    assert runs.done(runs.submit().execution_id)["status"] == "completed"


@pytest.mark.parametrize("kind", ["MemoryError", "SystemExit", "KeyboardInterrupt", "RecursionError"])
def test_whatever_an_agent_raises_ends_its_step_and_no_process(stack: Stack, runs: Runs, kind: str) -> None:
    processes = workers(stack)
    poll = runs.done(runs.submit("raiser", kind=kind).execution_id)
    assert (poll["status"], poll["error"]["error_code"]) == ("failed", "agent_error")
    assert poll["error"]["message"].startswith(kind)
    assert runs.done(runs.submit().execution_id)["status"] == "completed"
    assert workers(stack) == processes


def test_an_agent_that_kills_its_process_fails_at_the_third_loss_and_others_go_on(stack: Stack, runs: Runs) -> None:
    main = stack.pid("worker")
    poison = runs.submit("killer", "echo", spare=False).execution_id
    others = [runs.submit(seconds=0.2).execution_id for _ in range(10)]
    assert {poll["status"] for poll in runs.all_done(others)} == {"completed"}
    poll = runs.done(poison, within_s=40)
    assert (poll["status"], poll["error"]["error_code"]) == ("failed", "worker_lost")
    assert (poll["error"]["kind"], poll["error"]["attempt"]) == ("lost", 3)
    assert [(step["status"], step["attempts"]) for step in poll["steps"]] == [("failed", 3), ("skipped", 0)]
    assert sorted(line.split(":")[0] for line in runs.counted()) == sorted(others)
    assert runs.done(runs.submit().execution_id)["status"] == "completed"
    assert stack.pid("worker") == main


def test_a_zombie_that_wakes_after_its_lease_changes_nothing(stack: Stack, runs: Runs) -> None:
    run = runs.submit("counter", "counter", seconds=0.5).execution_id
    runs.begun(run)
    stack.pause("worker")
    with stack.another("worker") as other:
        poll = runs.done(run)
        before = stored(stack, run)
        stack.resume("worker")
        wait_until(lambda: "the lease was lost" in stack.logs("worker"), 10, "the zombie has stopped quietly")
        assert other.is_alive()
    assert poll["status"] == "completed"
    assert [step["attempts"] for step in poll["steps"]] == [2, 1]
    assert stored(stack, run) == before, "the zombie's record was refused"
    assert lines_of(poll, "step.completed") == ["counter", "counter-2"]
    assert [line.split(":")[1:] for line in runs.counted()] == [["counter", "1"], ["counter", "2"], ["counter-2", "1"]]
    assert runs.poll(run).body["rev"] == poll["rev"]
    assert runs.done(runs.submit().execution_id)["status"] == "completed"


def test_of_two_reconcilers_one_acts_and_the_other_takes_over(stack: Stack, runs: Runs) -> None:
    stack.stop("worker")
    with stack.another("reconciler") as second:
        run = runs.submit().execution_id
        stack.redis().flushall()
        wait_until(lambda: stored(stack, run)["steps"]["counter"]["offers"] == 3, 15, "it was offered twice again")
        rescues = [
            log.count(f'"a step was rescued","execution_id":"{run}"')
            for log in (stack.logs("reconciler"), second.said())
        ]
        assert sorted(rescues) == [0, 2], "one of them acts"
        if rescues[0]:
            stack.kill("reconciler")
        else:
            second.kill()
        stack.start("worker")
        stack.redis().flushall()
        assert runs.done(run)["status"] == "completed"
    assert len(runs.counted()) == 1


def test_runs_wait_for_a_reconciler_that_is_down_and_none_is_lost(stack: Stack, runs: Runs) -> None:
    stack.stop("reconciler")
    stack.stop("worker")
    queued = [runs.submit().execution_id for _ in range(5)]
    stack.redis().flushall()
    stack.start("worker")
    time.sleep(3)  # three hand-offs
    assert {runs.poll(run).body["status"] for run in queued} == {"queued"}
    stack.start("reconciler")
    assert {poll["status"] for poll in runs.all_done(queued)} == {"completed"}
    assert len(runs.counted()) == 5
