"""Agents that change their process, or leave processes behind: nothing of it reaches the next step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.api_client import AGENTS, RunClient
from tests.stack import Stack
from tests.waiting import descendants, is_running, wait_until
from worker.supervision.child_processes import children_of


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_WORKER_CONCURRENCY="1")  # so each step meets the last one's


def begin(runs: RunClient, **given: Any) -> str:
    body = {"agent_name": "vandal", "input_data": {"do": "nothing"} | given}
    response = requests.post(f"{runs.stack.url}/run-agent", json=body, timeout=10)
    assert response.status_code == 202, response.text
    return str(response.json()["execution_id"])


def outcome(runs: RunClient, **given: Any) -> dict[str, Any]:
    """Run the agent once and return its output."""
    poll = runs.wait_done(begin(runs, **given), 30)
    assert poll["status"] == "completed", poll["error"]
    result: dict[str, Any] = poll["result"]
    return result


def zombies_below(pid: int) -> list[int]:
    return [each for each in descendants(pid) if " Z " in Path(f"/proc/{each}/stat").read_text()]


def test_43_what_an_agent_changes_in_its_process_does_not_reach_the_next(runs: RunClient) -> None:
    before = outcome(runs)
    changed = outcome(runs, do="everything")
    after = outcome(runs)
    assert before["pid"] == changed["pid"] == after["pid"], "it is one process, or this test shows nothing"
    assert after["state"] == before["state"]
    transactions = [{"id": 1, "amount": 123456.78, "type": "expense"}]
    body = {"agent_name": "cashflow_analyzer", "input_data": {"transactions": transactions}}
    run = requests.post(f"{runs.stack.url}/run-agent", json=body, timeout=10).json()["execution_id"]
    assert runs.wait_done(run)["result"]["analysis"]["total"] == -123456.78


@pytest.mark.parametrize("do", ["environment", "signals", "event_loop", "warnings", "chatter", "thread"])
def test_43_neither_do_these(runs: RunClient, do: str) -> None:
    before = outcome(runs)
    changed = outcome(runs, do=do)
    after = outcome(runs)
    assert before["pid"] == changed["pid"] == after["pid"]
    assert after["state"] == before["state"]


def test_43_a_process_that_cannot_be_put_back_is_replaced_and_the_agents_outcome_stands(runs: RunClient) -> None:
    spoilt = outcome(runs, do="output")["pid"]
    assert outcome(runs)["pid"] != spoilt


def test_44_a_forked_process_never_goes_on_as_a_second_child(runs: RunClient) -> None:
    made = outcome(runs, do="fork")
    assert made["made"] == {"forked": True}, "the agent's own outcome counts, not that of the process it forked"
    assert outcome(runs)["pid"] == made["pid"]


def test_44_programs_that_an_agent_leaves_behind_end_with_its_step(runs: RunClient) -> None:
    left = outcome(runs, do="program")
    assert not is_running(left["made"]["pid"])
    assert outcome(runs)["pid"] == left["pid"]


def test_44_a_cancel_ends_what_a_step_has_begun(runs: RunClient) -> None:
    run = begin(runs, do="program", then_wait_s=60)
    worker = runs.stack.pid("worker")
    wait_until(lambda: any("sleep" in name_of(pid) for pid in descendants(worker)), 15, "the program runs")
    requests.post(f"{runs.stack.url}/executions/{run}/cancel", timeout=10)
    runs.wait_done(run)
    assert not [pid for pid in descendants(worker) if "sleep" in name_of(pid)]


def test_45_a_helper_that_leaves_its_parent_lives_as_long_as_the_step(runs: RunClient, tmp_path: Path) -> None:
    assert outcome(runs, do="daemon", file=str(tmp_path / "answer"))["made"] == {"answered": True}


def test_46_no_process_is_left_a_zombie_and_each_is_told_of_once(runs: RunClient) -> None:
    for _ in range(3):
        outcome(runs, do="background")
    worker = runs.stack.pid("worker")
    assert not [pid for pid in descendants(worker) if "sleep" in name_of(pid)]
    assert not zombies_below(worker)


def test_46_what_a_killed_child_leaves_is_reaped_by_the_worker(runs: RunClient) -> None:
    run = begin(runs, do="background", then_wait_s=60)
    worker = runs.stack.pid("worker")
    wait_until(lambda: sum("sleep" in name_of(pid) for pid in descendants(worker)) >= 3, 15, "its programs run")
    kill_children_of(worker)
    wait_until(lambda: not [pid for pid in descendants(worker) if "sleep" in name_of(pid)], 10, "they are ended")
    wait_until(lambda: not zombies_below(worker), 5, "and reaped")
    log = [line for line in runs.stack.logs("worker").splitlines() if "left behind is killed" in line]
    assert len(log) == len({line.partition('"pid"')[2] for line in log})
    requests.post(f"{runs.stack.url}/executions/{run}/cancel", timeout=10)
    runs.wait_done(run, 30)


def test_47_agents_may_use_multiprocessing(runs: RunClient) -> None:
    expected = {"by_pool": [0, 2, 4], "by_executor": [0, 2, 4]}
    assert [outcome(runs, do="pools")["made"] for _ in range(2)] == [expected, expected]
    assert not zombies_below(runs.stack.pid("worker"))


def test_48_a_child_whose_processes_come_back_is_replaced(runs: RunClient) -> None:
    before = outcome(runs, do="leak_pool")["pid"]
    wait_until(lambda: not is_running(before), 10, "the child has ended")
    assert outcome(runs)["pid"] != before
    wait_until(lambda: len(descendants(runs.stack.pid("worker"))) == 1, 10, "only the new child is left")


def test_48_a_child_with_a_thread_that_starts_programs_later_is_replaced(runs: RunClient) -> None:
    before = outcome(runs, do="later")["pid"]
    worker = runs.stack.pid("worker")
    wait_until(lambda: any("sleep" in name_of(pid) for pid in descendants(worker)), 10, "the program was started")
    assert outcome(runs)["pid"] == before
    wait_until(lambda: not is_running(before), 10, "the child has ended")
    assert outcome(runs)["pid"] != before
    assert not [pid for pid in descendants(worker) if "sleep" in name_of(pid)]


def test_49_a_child_that_fails_outside_of_an_agent_is_replaced_and_its_message_offered_again(runs: RunClient) -> None:
    broken = outcome(runs, do="break_worker")["pid"]
    assert outcome(runs)["pid"] != broken
    assert not is_running(broken)
    assert runs.stack.is_alive("worker")


def kill_children_of(worker: int) -> None:
    for pid in children_of(worker):
        os.kill(pid, signal.SIGKILL)


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""  # it has just ended
