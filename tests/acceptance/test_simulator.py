"""The simulator: what a poller sees of each phase of a script, on a stack whose leases are short."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import pytest

from benchmarks.harness.cpu_time import children_of
from tests.acceptance.client import Caller
from tests.stack import Stack
from tests.waiting import wait_until

SCRIPTS: Mapping[str, dict[str, Any]] = {
    "held": {"script": ["queued:0.4", "running:0.1", "completed"]},
    "lost": {"script": ["running:0.3@40", "worker_lost", "running:0.2@80", "completed"]},
    "lost_for_good": {"script": ["worker_lost", "worker_lost", "worker_lost", "completed"]},
    "failed": {"script": ["running:0.1@30", "failed:card_declined"]},
    "large": {"script": ["completed"], "result_bytes": 1_000_000},
    "too_large": {"script": ["completed"], "result_bytes": 4 * 1024 * 1024 + 1},
}


@pytest.fixture(scope="module")
def caller(brisk: Caller) -> Caller:
    """An integrator of the stack where a lost lease is soon over."""
    return brisk


@pytest.fixture(scope="module")
def runs(caller: Caller) -> Mapping[str, str]:
    """A run of each script, all submitted at once: the processes of the worker are the same ones afterwards."""
    return {name: caller.run("simulate", input_data=given) for name, given in SCRIPTS.items()}


def held_s(done: Mapping[str, Any]) -> float:
    """How long a run was held back, by the store's clock."""
    began, made = (datetime.fromisoformat(done[moment]) for moment in ("started_at", "created_at"))
    return (began - made).total_seconds()


def test_a_lost_worker_shows_as_one_more_attempt_that_goes_on_where_it_was(
    caller: Caller, runs: Mapping[str, str]
) -> None:
    children = children_of(caller.stack.pid("worker"))
    polled = caller.finished(runs["lost"])
    events = [line["event"] for line in polled["logs"]]
    lost = events.count("step.worker_lost")  # once by its script, and perhaps once more where this machine stands still
    assert lost in {1, 2}
    assert (polled["status"], polled["result"]) == ("completed", {"simulated": True, "attempts": lost + 1})
    assert polled["steps"][0]["attempts"] == lost + 1
    assert [line["message"] for line in polled["logs"] if line["event"] == "agent.log"][-1] == "running for 0.2 s"
    assert children_of(caller.stack.pid("worker")) == children, "no process of the worker has ended"


def test_a_lost_worker_is_seen_to_have_run_and_how_far_it_had_come(make_stack: Callable[..., Stack]) -> None:
    # With the lease as it comes, for the view of a queued run, which nobody renews, may stand for half of one: 15 s.
    caller = Caller(make_stack(BUCKET_LEASE_S="30", BUCKET_HEARTBEAT_S="10", BUCKET_HANDOFF_S="5"))
    scripts = (["worker_lost", "completed"], ["running:0.3@40", "worker_lost", "completed"])
    runs = [caller.run("simulate", input_data={"script": script}) for script in scripts]
    for run, percent in zip(runs, (0, 40), strict=True):
        wait_until(
            lambda run=run: caller.poll(run)["progress"]["message"] == "the worker is lost", 5, f"{run} is shown"
        )
        polled = caller.poll(run)
        assert (polled["status"], polled["progress"]["percent"], polled["rev"] >= 2) == ("running", percent, True)


def test_a_run_held_back_is_queued_without_a_worker_and_says_for_how_long(caller: Caller) -> None:
    run = caller.run("simulate", input_data={"script": ["queued:60", "completed"]})
    polled = caller.poll(run)
    assert (polled["status"], polled["started_at"]) == ("queued", None)
    assert polled["waiting_for"]["reason"] == "queue"
    assert 0 < polled["waiting_for"]["eta_ms"] <= 60_000
    assert caller.stack.redis().llen("default") == 0
    caller.post(f"/executions/{run}/cancel", {})
    done = caller.finished(caller.run("simulate", input_data={"script": ["queued:1.2", "completed"]}))
    assert held_s(done) >= 1.2
    assert (done["status"], done["steps"][0]["attempts"]) == ("completed", 1)
    assert [line["event"] for line in done["logs"]][:2] == ["execution.accepted", "step.started"]


def test_a_failure_bears_the_code_that_the_script_says(caller: Caller, runs: Mapping[str, str]) -> None:
    polled = caller.finished(runs["failed"])
    assert (polled["status"], polled["result"]) == ("failed", None)
    assert (polled["error"]["error_code"], polled["error"]["kind"]) == ("card_declined", "permanent")


def test_a_large_result_is_left_out_of_outputs_and_whole_in_result(caller: Caller, runs: Mapping[str, str]) -> None:
    polled = caller.finished(runs["large"])
    assert polled["outputs"]["simulate"]["omitted"] is True
    assert len(polled["result"]["filler"]) > 999_000
    polled = caller.finished(runs["too_large"])
    assert polled["error"]["error_code"] == "output_too_large"


def test_progress_moves_while_a_phase_runs(caller: Caller) -> None:
    run = caller.run("simulate", input_data={"script": ["running:20@90", "completed"]})
    seen: set[int] = set()

    def has_moved() -> bool:
        polled = caller.poll(run)
        if polled["status"] == "running":
            seen.add(polled["progress"]["percent"] or 0)
        return len({percent for percent in seen if 0 < percent < 90}) > 1

    wait_until(has_moved, 15, "its progress is seen to move")
    caller.post(f"/executions/{run}/cancel", {})


@pytest.mark.parametrize("script", [["queued:60"], ["running:60"], ["worker_lost", "running:60"]])
def test_a_cancel_works_in_every_phase(caller: Caller, script: list[str]) -> None:
    run = caller.run("simulate", input_data={"script": script})
    first = script[0].partition(":")[0].replace("worker_lost", "running")
    wait_until(lambda: caller.poll(run)["status"] == first, 5, f"{run} is {first}")
    assert caller.post(f"/executions/{run}/cancel", {}).status_code in {200, 202}
    assert caller.finished(run)["status"] == "cancelled"


def test_a_script_that_takes_longer_than_its_step_may_times_out(caller: Caller) -> None:
    config = {"steps": [{"agent": "simulate", "timeout_s": 0.3}]}
    answer = caller.post("/run-basket", {"config": config, "input_data": {"script": ["running:60"]}})
    polled = caller.finished(answer.json()["execution_id"])
    assert (polled["error"]["error_code"], polled["error"]["kind"]) == ("timeout", "timeout")


def test_without_input_it_is_done_within_two_seconds(caller: Caller) -> None:
    def took_s() -> float:
        began = time.monotonic()
        polled = caller.finished(caller.run("simulate"))
        assert (polled["status"], polled["input_source"]) == ("completed", "sample")
        return time.monotonic() - began

    wait_until(lambda: took_s() < 2, 10, "one of them is, unless this machine stands still each time")


def test_a_held_run_that_is_retried_from_its_start_is_held_again(caller: Caller, runs: Mapping[str, str]) -> None:
    caller.finished(runs["held"])
    answer = caller.post(f"/executions/{runs['held']}/retry", {"from": "start"})
    done = caller.finished(answer.json()["execution_id"])
    assert done["status"] == "completed"
    assert held_s(done) >= 0.4

    long = caller.run("simulate", input_data={"script": ["queued:60", "completed"]})
    caller.post(f"/executions/{long}/cancel", {})
    again = caller.post(f"/executions/{long}/retry", {"from": "start"}).json()["execution_id"]
    polled = caller.poll(again)
    assert (polled["status"], polled["waiting_for"]["reason"]) == ("queued", "queue")
    assert polled["waiting_for"]["eta_ms"] > 0
    caller.post(f"/executions/{again}/cancel", {})


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"script": ["running:1", "asleep:1"]}, "/input_data/script/1"),
        ({"script": ["running:1@101"]}, "/input_data/script/0"),
        ({"script": ["running:-1"]}, "/input_data/script/0"),
        ({"script": ["running:1\n"]}, "/input_data/script/0"),
        ({"script": ["failed:Card Declined"]}, "/input_data/script/0"),
        ({"script": ["failed:" + "x" * 64]}, "/input_data/script/0"),
        ({"script": [{"$gt": ""}]}, "/input_data/script/0"),
        ({"script": ["running:1", "queued:1"]}, "/input_data/script/1"),
        ({"script": ["completed", "running:1"]}, "/input_data/script/1"),
        ({"script": ["running:3000", "running:3000"]}, "/input_data/script/1"),
        ({"script": ["running:0"] * 101}, "/input_data/script"),
        ({"script": "running:1"}, "/input_data/script"),
        ({"result_bytes": -1}, "/input_data/result_bytes"),
        ({"result_bytes": 10**9}, "/input_data/result_bytes"),
    ],
)
def test_what_cannot_be_played_is_refused_with_its_place(caller: Caller, given: dict[str, Any], pointer: str) -> None:
    answer = caller.post("/run-basket", {"basket_name": "simulate", "input_data": given})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "validation_failed")
    assert pointer in [detail["pointer"] for detail in answer.json()["details"]]


def test_the_name_is_reserved(caller: Caller) -> None:
    made = caller.post("/create-basket", {"name": "simulate", "agents": ["echo"]})
    assert (made.status_code, made.json()["error_code"]) == (409, "basket_exists")
    assert "reserved" in made.json()["detail"]
    gone = caller.ask("DELETE", "/baskets/simulate")
    assert (gone.status_code, gone.json()["error_code"]) == (400, "validation_failed")
    assert "reserved" in gone.json()["detail"]
    assert caller.get("/baskets/simulate").json()["agents"] == ["simulate"]


def test_lost_workers_count_until_the_run_fails_with_worker_lost(caller: Caller, runs: Mapping[str, str]) -> None:
    polled = caller.finished(runs["lost_for_good"])
    assert (polled["status"], polled["error"]["error_code"]) == ("failed", "worker_lost")
    assert (polled["error"]["kind"], polled["steps"][0]["attempts"]) == ("lost", 3)
