"""Workers that die, freeze or run poison steps: scenarios 13 to 20 and 22."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from tests.api_client import RunClient
from tests.faults.inspection import kill_children, restart_with, steps_with_event, stored_run, worker_pids
from tests.stack import SecondProcess, Stack
from tests.waiting import descendants, is_running, wait_until
from worker.steps.batch_runner import BATCH_SIZE_MAX


@pytest.mark.parametrize(
    ("point", "lost_step"),
    [
        ("worker.claimed", "counter"),
        ("worker.agent_returned", "counter"),
        ("worker.written", "counter-2"),  # and not published
        ("worker.published", "counter-2"),  # and not acknowledged
    ],
)
def test_13_a_worker_child_that_is_killed_costs_an_attempt_and_no_run(
    stack: Stack, runs: RunClient, point: str, lost_step: str
) -> None:
    restart_with(stack, "worker", BUCKET_FAULTS=f"{point}=kill")
    children = descendants(stack.pid("worker"))
    run = runs.submit("counter", "counter", seconds=0.2).execution_id  # too slow to share a write
    # The pool replaces the child, which would die again at each attempt; the third loss would end the run.
    wait_until(lambda: children - descendants(stack.pid("worker")), 15, "its child died")
    stack.kill("worker")  # a normal stop would wait for the lost child
    stack.start("worker")

    poll = runs.wait_done(run)
    steps = stored_run(stack, run)["steps"]
    assert poll["status"] == "completed"
    assert steps_with_event(poll, "step.completed") == ["counter", "counter-2"], "each is recorded once"
    assert {name: step["losses"] > 0 for name, step in steps.items()} == {
        name: name == lost_step for name in ("counter", "counter-2")
    }
    assert {step["step"]: step["attempts"] for step in poll["steps"]} == {
        name: steps[name]["losses"] + 1 for name in steps
    }
    assert steps_with_event(poll, "step.worker_lost") == [lost_step] * steps[lost_step]["losses"]


def test_13_children_that_have_ended_are_replaced_within_a_second_or_two(stack: Stack, runs: RunClient) -> None:
    """By Celery alone, now and then it takes up to 5 s: its event comes before the child can be reaped."""
    stack.pause("reconciler")  # it would offer the step again, which another worker could begin
    for _ in range(40):
        kill_children(stack)
        run = runs.submit("echo").execution_id
        assert runs.wait_done(run, within_s=3)["status"] == "completed"


def test_13_a_child_killed_in_the_first_moments_of_an_idempotent_step_loses_a_message_and_no_lease(
    stack: Stack, runs: RunClient
) -> None:
    restart_with(stack, "worker", BUCKET_FAULTS="worker.agent_returned=kill")
    children = descendants(stack.pid("worker"))
    stack.pause("reconciler")  # else it is offered again to the child that replaces this one, and dies too
    run = runs.submit("echo").execution_id
    wait_until(lambda: children - descendants(stack.pid("worker")), 15, "its child died")
    stack.kill("worker")
    assert stored_run(stack, run)["steps"]["echo"]["status"] == "ready", "no claim was stored, or this shows nothing"
    stack.start("worker")
    stack.resume("reconciler")
    poll = runs.wait_done(run)
    step = stored_run(stack, run)["steps"]["echo"]
    assert poll["status"] == "completed"
    assert (step["offers"], step["claims"], step["losses"]) == (2, 1, 0)


def test_13_a_stale_view_is_served_for_half_a_lease_at_most(stack: Stack, runs: RunClient) -> None:
    restart_with(stack, "worker", BUCKET_FAULTS="worker.written=kill")
    run = runs.submit("counter", seconds=0.3).execution_id  # long enough to be shown as running
    wait_until(lambda: stored_run(stack, run)["status"] == "completed", 15, "its end is in MongoDB")
    assert runs.poll(run).body["status"] == "running", "the view in Redis is stale, else this test shows nothing"
    half_a_lease_s = 1.5
    wait_until(lambda: bool(runs.poll(run).body["done"]), half_a_lease_s + 0.5, "the poll shows the end")
    stack.kill("worker")
    stack.start("worker")


def test_14_a_worker_killed_whole_in_the_middle_of_a_step_loses_no_run(stack: Stack, runs: RunClient) -> None:
    run = runs.submit("counter", "counter", first_s=60).execution_id
    runs.wait_begun(run)
    stack.kill("worker")
    stack.start("worker")
    poll = runs.wait_done(run)
    assert poll["status"] == "completed"
    assert [step["attempts"] for step in poll["steps"]] == [2, 1]
    assert [line.split(":")[1:] for line in runs.counter_lines()] == [
        ["counter", "1"],
        ["counter", "2"],
        ["counter-2", "1"],
    ]


def test_13_a_child_killed_in_mid_step_costs_no_earlier_step(stack: Stack, runs: RunClient) -> None:
    main = stack.pid("worker")
    run = runs.submit("counter", "counter", seconds=1.5).execution_id
    runs.wait_begun(run, 2)
    kill_children(stack)
    poll = runs.wait_done(run)
    losses = stored_run(stack, run)["steps"]["counter-2"]["losses"]  # one, or more on a busy machine
    assert losses > 0
    assert (poll["status"], [step["attempts"] for step in poll["steps"]]) == ("completed", [1, losses + 1])
    assert steps_with_event(poll, "step.completed") == ["counter", "counter-2"]
    assert stack.pid("worker") == main


def test_14_a_program_started_by_an_agent_dies_with_its_worker(stack: Stack, runs: RunClient, tmp_path: Path) -> None:
    started = begin_spawner(runs, tmp_path)
    stack.kill("worker")
    wait_until(lambda: not is_running(started), 5, "the agent's own program is gone")
    stack.start("worker")


def test_13_a_program_started_by_an_agent_dies_with_its_child_process(
    stack: Stack, runs: RunClient, tmp_path: Path
) -> None:
    started = begin_spawner(runs, tmp_path)
    others = descendants(stack.pid("worker")) - {started}
    for child in others:
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: not is_running(started), 10, "the watchdog has ended the agent's own program")


def begin_spawner(runs: RunClient, tmp_path: Path) -> int:
    """Run the agent that starts a program, and return the process id of the program."""
    note = tmp_path / "started"
    body = {"agent_name": "spawner", "input_data": {"file": str(note), "seconds": 60}}
    assert requests.post(f"{runs.stack.url}/run-agent", json=body, timeout=10).status_code == 202
    wait_until(note.exists, 15, "the agent has started its program")
    return int(note.read_text())


def test_15_children_end_with_their_main_process(stack: Stack, runs: RunClient) -> None:
    run = runs.submit("counter", "counter", first_s=60).execution_id
    runs.wait_begun(run)
    children = descendants(stack.pid("worker"))
    os.kill(stack.pid("worker"), signal.SIGKILL)
    wait_until(lambda: not any(is_running(child) for child in children), 3, "its children are gone")
    wait_until(lambda: not stack.is_alive("worker"), 5, "it has ended")
    stack.start("worker")
    poll = runs.wait_done(run)
    assert (poll["status"], [step["attempts"] for step in poll["steps"]]) == ("completed", [2, 1])


def test_17_a_step_of_three_leases_is_executed_once(stack: Stack, runs: RunClient) -> None:
    with stack.second_process("worker"):
        run = runs.submit(seconds=9.5).execution_id
        poll = runs.wait_done(run)
    assert (poll["status"], poll["steps"][0]["attempts"]) == ("completed", 1)
    assert runs.counter_lines_of(run) == [f"{run}:counter:1"]
    step = stored_run(stack, run)["steps"]["counter"]
    assert (step["losses"], step["offers"]) == (0, 1)


def test_18_a_step_longer_than_the_brokers_visibility_timeout_is_executed_once(stack: Stack, runs: RunClient) -> None:
    stack.stop("worker")
    plan = stack.plan("worker")
    short = replace(plan, argv=(plan.argv[0], "-c", SHORT_VISIBILITY))
    both = [SecondProcess(short, stack.root, stack.group_reaper) for _ in range(2)]
    try:
        for worker in both:
            worker.start(lambda worker=worker: "ready" in worker.output())  # type: ignore[misc]
        run = runs.submit(seconds=5).execution_id
        runs.wait_begun(run)
        assert not stack.redis().exists("unacked", "unacked_index"), "nothing is ever parked by the broker"
        assert runs.wait_done(run)["steps"][0]["attempts"] == 1
    finally:
        for worker in both:
            worker.kill()
    assert runs.counter_lines_of(run) == [f"{run}:counter:1"]


SHORT_VISIBILITY = """
from worker.app import app
app.conf.broker_transport_options |= {"visibility_timeout": 1, "unacked_restore_limit": 1}
app.start(["worker"])
"""


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("nan", "output_not_serialisable"),
        ("bigint", "output_not_serialisable"),
        ("surrogate", "output_not_serialisable"),
        ("nul_key", "output_not_serialisable"),
        ("deep", "output_not_serialisable"),
        ("not_object", "output_not_serialisable"),
        ("too_large", "output_too_large"),
        ("bad_schema", "output_invalid"),
    ],
)
def test_22_an_output_that_no_store_accepts_fails_its_step_at_the_first_attempt(
    stack: Stack, runs: RunClient, kind: str, code: str
) -> None:
    processes = worker_pids(stack)
    poll = runs.wait_done(runs.submit("returner", kind=kind).execution_id)
    assert (poll["status"], poll["error"]["error_code"], poll["steps"][0]["attempts"]) == ("failed", code, 1)
    assert worker_pids(stack) == processes


def test_16_a_zombie_that_wakes_after_its_lease_writes_nothing(stack: Stack, runs: RunClient) -> None:
    run = runs.submit("counter", "counter", first_s=5).execution_id
    runs.wait_begun(run)
    stack.pause("worker")
    with stack.second_process("worker") as other:
        poll = runs.wait_done(run)
        before = stored_run(stack, run)
        stack.resume("worker")
        wait_until(lambda: "the lease was lost" in stack.logs("worker"), 10, "the zombie has stopped quietly")
        assert other.is_alive()
    assert poll["status"] == "completed"
    assert [step["attempts"] for step in poll["steps"]] == [2, 1]
    assert stored_run(stack, run) == before, "the zombie's record was refused"
    assert steps_with_event(poll, "step.completed") == ["counter", "counter-2"]
    assert [line.split(":")[1:] for line in runs.counter_lines()] == [
        ["counter", "1"],
        ["counter", "2"],
        ["counter-2", "1"],
    ]
    assert runs.poll(run).body["rev"] == poll["rev"]
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"


def test_19_an_agent_that_kills_its_process_fails_at_the_third_loss_and_other_runs_continue(
    stack: Stack, runs: RunClient
) -> None:
    main = stack.pid("worker")
    poison = runs.submit("killer", "echo", spare=False).execution_id
    others = [runs.submit(seconds=0.2).execution_id for _ in range(10)]
    assert {poll["status"] for poll in runs.wait_all_done(others)} == {"completed"}
    poll = runs.wait_done(poison, within_s=40)
    assert (poll["status"], poll["error"]["error_code"]) == ("failed", "worker_lost")
    assert (poll["error"]["kind"], poll["error"]["attempt"]) == ("lost", 3)
    assert [(step["status"], step["attempts"]) for step in poll["steps"]] == [("failed", 3), ("skipped", 0)]
    assert sorted(line.split(":")[0] for line in runs.counter_lines()) == sorted(others)
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
    assert stack.pid("worker") == main


def test_19_a_poison_step_costs_each_run_claimed_in_its_batch_at_most_one_loss(stack: Stack, runs: RunClient) -> None:
    stack.pause("worker")
    others = [runs.submit().execution_id for _ in range(60)]
    poison = runs.submit("killer", spare=False).execution_id
    others += [runs.submit().execution_id for _ in range(20)]
    stack.resume("worker")
    assert {poll["status"] for poll in runs.wait_all_done(others)} == {"completed"}
    assert runs.wait_done(poison, within_s=40)["error"]["error_code"] == "worker_lost"
    losses = [stored_run(stack, run)["steps"]["counter"]["losses"] for run in others]
    assert set(losses) <= {0, 1}
    assert sum(losses) < BATCH_SIZE_MAX


def test_14_a_worker_killed_while_it_runs_a_batch_loses_no_run(stack: Stack, runs: RunClient) -> None:
    stack.pause("worker")
    ids = [runs.submit("counter", "counter").execution_id for _ in range(200)]
    stack.resume("worker")
    wait_until(lambda: len(runs.counter_lines()) > 100, 15, "it is in the middle of the batch")
    stack.kill("worker")
    stack.start("worker")
    for poll in runs.wait_all_done(ids):
        assert (poll["status"], steps_with_event(poll, "step.completed")) == ("completed", ["counter", "counter-2"])
    losses = [step["losses"] for run in ids for step in stored_run(stack, run)["steps"].values()]
    assert set(losses) <= {0, 1}
    assert sum(losses) <= 2 * BATCH_SIZE_MAX, "those claimed by its two children"


def test_30_a_worker_that_shuts_down_while_it_runs_a_batch_counts_no_loss(stack: Stack, runs: RunClient) -> None:
    stack.pause("worker")
    ids = [runs.submit("counter", "counter").execution_id for _ in range(200)]
    stack.resume("worker")
    wait_until(lambda: len(runs.counter_lines()) > 100, 15, "it is in the middle of the batch")
    stack.stop("worker")
    assert len(runs.counter_lines()) < 2 * len(ids), "it did not finish all of them first"
    stack.start("worker")
    for poll in runs.wait_all_done(ids):
        assert (poll["status"], steps_with_event(poll, "step.completed")) == ("completed", ["counter", "counter-2"])
    steps = [step for run in ids for step in stored_run(stack, run)["steps"].values()]
    assert {(step["losses"], step["failures"]) for step in steps} == {(0, 0)}
    assert len(runs.counter_lines()) == 2 * len(ids), "each ran once"


@pytest.mark.parametrize("kind", ["MemoryError", "SystemExit", "KeyboardInterrupt", "RecursionError"])
def test_20_any_exception_of_an_agent_ends_its_step_and_no_process(stack: Stack, runs: RunClient, kind: str) -> None:
    processes = worker_pids(stack)
    poll = runs.wait_done(runs.submit("raiser", kind=kind).execution_id)
    assert (poll["status"], poll["error"]["error_code"]) == ("failed", "agent_error")
    assert poll["error"]["message"].startswith(kind)
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
    assert worker_pids(stack) == processes
