"""Timeouts, retries, cancels and hand-backs of real agents on real workers: scenarios 30 and 36."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.client import AGENTS, ApiClient
from tests.stack import Stack
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def stack(make_stack: Any) -> Iterator[Stack]:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_GRACE_S="1", BUCKET_DRAIN_S="2", BUCKET_LEASE_S="8")


@pytest.fixture
def caller(stack: Stack) -> Iterator[ApiClient]:
    yield ApiClient(stack)
    stack.repair()


def running(caller: ApiClient, agent: str, **input_data: Any) -> str:
    """Submit an agent, wait until it runs and return the id of the run."""
    execution_id = caller.submit_agent(agent, **input_data)
    wait_until(lambda: caller.poll(execution_id)["status"] == "running", what="the run never ran")
    return execution_id


def test_36_a_waiting_run_is_cancelled_at_once(caller: ApiClient) -> None:
    caller.stack.stop("worker")
    execution_id = caller.submit_basket("finance_daily_check")
    response = caller.post(f"/executions/{execution_id}/cancel", {"reason": "no need"})
    assert response.status_code == 200
    view = response.json()
    assert (view["status"], view["done"]) == ("cancelled", True)
    assert view["cancel"]["outcome"] == "applied"
    assert view["cancel"]["reason"] == "no need"
    assert view["error"]["kind"] == "cancelled"
    assert [step["status"] for step in view["steps"]] == ["cancelled", "skipped"]
    caller.stack.start("worker")
    again = caller.request("POST", f"/executions/{execution_id}/cancel")
    assert again.status_code == 200
    assert again.json()["rev"] == view["rev"]


def test_36_an_agent_that_checks_for_a_cancel_stops_soon(caller: ApiClient) -> None:
    execution_id = running(caller, "sleeper", seconds=60)
    response = caller.request("POST", f"/executions/{execution_id}/cancel")
    assert response.status_code == 202
    assert response.json()["cancel"]["outcome"] == "pending"
    view = caller.wait_done(execution_id)
    assert view["status"] in {"cancelled", "completed"}
    assert view["cancel"]["outcome"] in {"applied", "already_final"}


@pytest.mark.parametrize("how", ["sleep", "loop", "swallow", "regex"])
def test_36_an_agent_that_does_not_check_for_a_cancel_is_interrupted(caller: ApiClient, how: str) -> None:
    execution_id = running(caller, "stubborn", how=how)
    assert caller.request("POST", f"/executions/{execution_id}/cancel").status_code == 202
    view = caller.wait_done(execution_id)
    assert view["status"] == "cancelled"
    assert view["steps"][0]["status"] == "cancelled"

    assert caller.wait_done(caller.submit_basket())["status"] == "completed"


@pytest.mark.parametrize("how", ["sleep", "loop", "swallow", "regex"])
def test_a_step_that_takes_too_long_times_out(caller: ApiClient, how: str) -> None:
    execution_id = caller.submit_agent("stubborn_soon", how=how)
    view = caller.wait_done(execution_id)
    assert view["status"] == "failed"
    assert (view["error"]["error_code"], view["error"]["kind"]) == ("timeout", "timeout")
    assert view["steps"][0]["attempts"] == 1
    assert caller.wait_done(caller.submit_basket())["status"] == "completed"


def test_a_transient_failure_is_tried_again(caller: ApiClient, tmp_path: Path) -> None:
    execution_id = caller.submit_agent("flaky", path=str(tmp_path / "tries"), failures=2)
    view = caller.wait_done(execution_id)
    assert (view["status"], view["steps"][0]["attempts"]) == ("completed", 3)
    assert [line["event"] for line in view["logs"]].count("step.retrying") == 2


def test_a_repeated_transient_failure_is_final_after_three_attempts(caller: ApiClient, tmp_path: Path) -> None:
    view = caller.wait_done(caller.submit_agent("flaky", path=str(tmp_path / "tries"), failures=9))
    assert (view["status"], view["steps"][0]["attempts"]) == ("failed", 3)
    assert view["error"]["kind"] == "transient"


def test_30_a_worker_that_shuts_down_hands_its_step_back(caller: ApiClient) -> None:
    execution_id = running(caller, "sleeper_once", path=str(caller.stack.root / f"once-{time.time_ns()}"), seconds=60)
    caller.stack.stop("worker")
    assert caller.poll(execution_id)["status"] == "running"
    caller.stack.start("worker")
    view = caller.wait_done(execution_id)
    assert view["status"] == "completed"
    assert view["steps"][0]["attempts"] == 2
    events = [line["event"] for line in view["logs"]]
    assert "step.released" in events
    assert "step.worker_lost" not in events


def test_30_a_worker_that_shuts_down_finishes_a_step_that_is_nearly_done(caller: ApiClient) -> None:
    caller.stack.stop("worker")
    caller.stack.start("worker", BUCKET_DRAIN_S="15")  # many times what it needs, in case this machine is busy
    execution_id = running(caller, "sleeper", seconds=1.5)
    caller.stack.stop("worker")
    view = caller.poll(execution_id)
    assert view["status"] == "completed"
    assert view["steps"][0]["attempts"] == 1


def test_30_a_step_handed_back_continues_elsewhere_at_once_and_not_after_its_lease(caller: ApiClient) -> None:
    stack = caller.stack
    note = stack.root / f"once-{time.time_ns()}"
    execution_id = running(caller, "sleeper_once", path=str(note), seconds=600)
    wait_until(note.exists, 10, "its agent sleeps")
    with stack.second_process("worker"):
        stack.stop("worker")
        assert stack.exit_code("worker") == 0
        view = caller.wait_done(execution_id)
    events = {line["event"]: line["timestamp"] for line in view["logs"]}
    waited = datetime.fromisoformat(view["finished_at"]) - datetime.fromisoformat(events["step.released"])
    assert (view["status"], view["steps"][0]["attempts"]) == ("completed", 2)
    assert waited.total_seconds() < 4, "the lease is 8 s"


def test_36_a_cancelled_run_whose_worker_is_killed_ends_cancelled(caller: ApiClient) -> None:
    execution_id = running(caller, "stubborn", how="sleep")
    assert caller.request("POST", f"/executions/{execution_id}/cancel").status_code == 202
    caller.stack.kill("worker")
    caller.stack.start("worker")
    view = caller.wait_done(execution_id)
    assert (view["status"], view["steps"][0]["attempts"]) == ("cancelled", 1)


def test_36_a_cancel_that_races_the_end_of_its_run_leaves_one_end(caller: ApiClient) -> None:
    ids = [caller.submit_agent("counter", seconds=0.05) for _ in range(30)]
    for number, execution_id in enumerate(ids):
        time.sleep(0.004 * (number % 7))
        assert caller.request("POST", f"/executions/{execution_id}/cancel").status_code in {200, 202}
    ends = [caller.wait_done(execution_id) for execution_id in ids]
    assert {view["status"] for view in ends} <= {"cancelled", "completed"}
    for view in ends:
        end_events = [line["event"] for line in view["logs"] if line["event"].startswith("execution.")]
        assert len([event for event in end_events if event in {"execution.cancelled", "execution.completed"}]) == 1
        again = caller.poll(view["execution_id"])
        assert (again["status"], again["rev"]) == (view["status"], view["rev"]), "nothing resurrects it"
