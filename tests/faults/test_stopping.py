"""Timeouts, retries, cancels and hand-backs of real agents on real workers: scenarios 30 and 36."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.client import AGENTS, Caller
from tests.stack import Stack
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def stack(make_stack: Any) -> Iterator[Stack]:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_GRACE_S="1", BUCKET_DRAIN_S="2", BUCKET_LEASE_S="8")


@pytest.fixture
def caller(stack: Stack) -> Iterator[Caller]:
    yield Caller(stack)
    stack.mend()


def running(caller: Caller, agent: str, **given: Any) -> str:
    """Submit an agent and wait until it runs."""
    execution_id = caller.run_agent(agent, **given)
    wait_until(lambda: caller.poll(execution_id)["status"] == "running", what="the run never ran")
    return execution_id


def test_36_a_run_that_waits_is_cancelled_at_once(caller: Caller) -> None:
    caller.stack.stop("worker")
    execution_id = caller.run("finance_daily_check")
    answer = caller.post(f"/executions/{execution_id}/cancel", {"reason": "no need"})
    assert answer.status_code == 200
    polled = answer.json()
    assert (polled["status"], polled["done"]) == ("cancelled", True)
    assert polled["cancel"]["outcome"] == "applied"
    assert polled["cancel"]["reason"] == "no need"
    assert polled["error"]["kind"] == "cancelled"
    assert [step["status"] for step in polled["steps"]] == ["cancelled", "skipped"]
    caller.stack.start("worker")
    again = caller.ask("POST", f"/executions/{execution_id}/cancel")
    assert again.status_code == 200
    assert again.json()["rev"] == polled["rev"]


def test_36_an_agent_that_looks_is_cancelled_soon(caller: Caller) -> None:
    execution_id = running(caller, "sleeper", seconds=60)
    answer = caller.ask("POST", f"/executions/{execution_id}/cancel")
    assert answer.status_code == 202
    assert answer.json()["cancel"]["outcome"] == "pending"
    polled = caller.finished(execution_id)
    assert polled["status"] in {"cancelled", "completed"}
    assert polled["cancel"]["outcome"] in {"applied", "already_final"}


@pytest.mark.parametrize("how", ["sleep", "loop", "swallow", "regex"])
def test_36_an_agent_that_does_not_look_is_cancelled_by_force(caller: Caller, how: str) -> None:
    execution_id = running(caller, "stubborn", how=how)
    assert caller.ask("POST", f"/executions/{execution_id}/cancel").status_code == 202
    polled = caller.finished(execution_id)
    assert polled["status"] == "cancelled"
    assert polled["steps"][0]["status"] == "cancelled"

    assert caller.finished(caller.run())["status"] == "completed"


@pytest.mark.parametrize("how", ["sleep", "loop", "swallow", "regex"])
def test_a_step_that_takes_too_long_times_out(caller: Caller, how: str) -> None:
    execution_id = caller.run_agent("stubborn_soon", how=how)
    polled = caller.finished(execution_id)
    assert polled["status"] == "failed"
    assert (polled["error"]["error_code"], polled["error"]["kind"]) == ("timeout", "timeout")
    assert polled["steps"][0]["attempts"] == 1
    assert caller.finished(caller.run())["status"] == "completed"


def test_a_transient_failure_is_tried_again(caller: Caller, tmp_path: Path) -> None:
    execution_id = caller.run_agent("flaky", path=str(tmp_path / "tries"), failures=2)
    polled = caller.finished(execution_id)
    assert (polled["status"], polled["steps"][0]["attempts"]) == ("completed", 3)
    assert [line["event"] for line in polled["logs"]].count("step.retrying") == 2


def test_a_transient_failure_that_stays_is_for_good_after_three(caller: Caller, tmp_path: Path) -> None:
    polled = caller.finished(caller.run_agent("flaky", path=str(tmp_path / "tries"), failures=9))
    assert (polled["status"], polled["steps"][0]["attempts"]) == ("failed", 3)
    assert polled["error"]["kind"] == "transient"


def test_30_a_worker_that_shuts_down_hands_its_step_back(caller: Caller) -> None:
    execution_id = running(caller, "sleeper_once", path=str(caller.stack.root / f"once-{time.time_ns()}"), seconds=60)
    caller.stack.stop("worker")
    assert caller.poll(execution_id)["status"] == "running"
    caller.stack.start("worker")
    polled = caller.finished(execution_id)
    assert polled["status"] == "completed"
    assert polled["steps"][0]["attempts"] == 2
    events = [line["event"] for line in polled["logs"]]
    assert "step.released" in events
    assert "step.worker_lost" not in events


def test_30_a_worker_that_shuts_down_finishes_a_step_that_is_nearly_done(caller: Caller) -> None:
    caller.stack.stop("worker")
    caller.stack.start("worker", BUCKET_DRAIN_S="15")  # many times what it needs, should this machine stand still
    execution_id = running(caller, "sleeper", seconds=1.5)
    caller.stack.stop("worker")
    polled = caller.poll(execution_id)
    assert polled["status"] == "completed"
    assert polled["steps"][0]["attempts"] == 1


def test_30_a_step_handed_back_goes_on_elsewhere_at_once_and_not_after_its_lease(caller: Caller) -> None:
    stack = caller.stack
    note = stack.root / f"once-{time.time_ns()}"
    execution_id = running(caller, "sleeper_once", path=str(note), seconds=600)
    wait_until(note.exists, 10, "its agent sleeps")
    with stack.another("worker"):
        stack.stop("worker")
        assert stack.exit_code("worker") == 0
        polled = caller.finished(execution_id)
    events = {line["event"]: line["timestamp"] for line in polled["logs"]}
    waited = datetime.fromisoformat(polled["finished_at"]) - datetime.fromisoformat(events["step.released"])
    assert (polled["status"], polled["steps"][0]["attempts"]) == ("completed", 2)
    assert waited.total_seconds() < 4, "the lease is 8 s"


def test_36_a_cancelled_run_whose_worker_is_killed_ends_cancelled(caller: Caller) -> None:
    execution_id = running(caller, "stubborn", how="sleep")
    assert caller.ask("POST", f"/executions/{execution_id}/cancel").status_code == 202
    caller.stack.kill("worker")
    caller.stack.start("worker")
    polled = caller.finished(execution_id)
    assert (polled["status"], polled["steps"][0]["attempts"]) == ("cancelled", 1)


def test_36_a_cancel_that_races_the_end_of_its_run_leaves_one_end(caller: Caller) -> None:
    ids = [caller.run_agent("counter", seconds=0.05) for _ in range(30)]
    for number, execution_id in enumerate(ids):
        time.sleep(0.004 * (number % 7))
        assert caller.ask("POST", f"/executions/{execution_id}/cancel").status_code in {200, 202}
    ends = [caller.finished(execution_id) for execution_id in ids]
    assert {polled["status"] for polled in ends} <= {"cancelled", "completed"}
    for polled in ends:
        over = [line["event"] for line in polled["logs"] if line["event"].startswith("execution.")]
        assert len([event for event in over if event in {"execution.cancelled", "execution.completed"}]) == 1
        again = caller.poll(polled["execution_id"])
        assert (again["status"], again["rev"]) == (polled["status"], polled["rev"]), "nothing resurrects it"
