"""The simulator: what a poller sees of each phase of a script, on a stack with short leases."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import pytest

from benchmarks.harness.cpu_time import children_of
from tests.acceptance.client import ApiClient
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
def caller(short_lease_caller: ApiClient) -> ApiClient:
    """Return the client of the stack with short leases."""
    return short_lease_caller


@pytest.fixture(scope="module")
def runs(caller: ApiClient) -> Mapping[str, str]:
    """Submit one run of each script, all at once; return their ids by name of the script."""
    return {name: caller.submit_basket("simulate", input_data=input_data) for name, input_data in SCRIPTS.items()}


def held_s(view: Mapping[str, Any]) -> float:
    """Return how long a run was held back, by the store's clock."""
    started, created = (datetime.fromisoformat(view[moment]) for moment in ("started_at", "created_at"))
    return (started - created).total_seconds()


def test_a_lost_worker_shows_as_one_more_attempt_that_continues_the_script(
    caller: ApiClient, runs: Mapping[str, str]
) -> None:
    children = children_of(caller.stack.pid("worker"))
    view = caller.wait_done(runs["lost"])
    events = [line["event"] for line in view["logs"]]
    losses = events.count("step.worker_lost")  # once by its script, and perhaps once more on a busy machine
    assert losses in {1, 2}
    assert (view["status"], view["result"]) == ("completed", {"simulated": True, "attempts": losses + 1})
    assert view["steps"][0]["attempts"] == losses + 1
    assert [line["message"] for line in view["logs"] if line["event"] == "agent.log"][-1] == "running for 0.2 s"
    assert children_of(caller.stack.pid("worker")) == children, "no process of the worker has ended"


def test_a_lost_worker_shows_as_running_with_its_last_progress(make_stack: Callable[..., Stack]) -> None:
    # With the default lease, because a queued run's view is not renewed and may be served for half of it: 15 s.
    caller = ApiClient(make_stack(BUCKET_LEASE_S="30", BUCKET_HEARTBEAT_S="10", BUCKET_HANDOFF_S="5"))
    scripts = (["worker_lost", "completed"], ["running:0.3@40", "worker_lost", "completed"])
    runs = [caller.submit_basket("simulate", input_data={"script": script}) for script in scripts]
    for run, percent in zip(runs, (0, 40), strict=True):
        wait_until(
            lambda run=run: caller.poll(run)["progress"]["message"] == "the worker is lost", 5, f"{run} is shown"
        )
        view = caller.poll(run)
        assert (view["status"], view["progress"]["percent"], view["rev"] >= 2) == ("running", percent, True)


def test_a_run_held_back_is_queued_without_a_worker_and_says_for_how_long(caller: ApiClient) -> None:
    run = caller.submit_basket("simulate", input_data={"script": ["queued:60", "completed"]})
    view = caller.poll(run)
    assert (view["status"], view["started_at"]) == ("queued", None)
    assert view["waiting_for"]["reason"] == "queue"
    assert 0 < view["waiting_for"]["eta_ms"] <= 60_000
    assert caller.stack.redis().llen("default") == 0
    caller.post(f"/executions/{run}/cancel", {})
    final_view = caller.wait_done(caller.submit_basket("simulate", input_data={"script": ["queued:1.2", "completed"]}))
    assert held_s(final_view) >= 1.2
    assert (final_view["status"], final_view["steps"][0]["attempts"]) == ("completed", 1)
    assert [line["event"] for line in final_view["logs"]][:2] == ["execution.accepted", "step.started"]


def test_a_failure_has_the_code_of_the_script(caller: ApiClient, runs: Mapping[str, str]) -> None:
    view = caller.wait_done(runs["failed"])
    assert (view["status"], view["result"]) == ("failed", None)
    assert (view["error"]["error_code"], view["error"]["kind"]) == ("card_declined", "permanent")


def test_a_large_result_is_omitted_in_outputs_and_complete_in_result(
    caller: ApiClient, runs: Mapping[str, str]
) -> None:
    view = caller.wait_done(runs["large"])
    assert view["outputs"]["simulate"]["omitted"] is True
    assert len(view["result"]["filler"]) > 999_000
    view = caller.wait_done(runs["too_large"])
    assert view["error"]["error_code"] == "output_too_large"


def test_progress_moves_while_a_phase_runs(caller: ApiClient) -> None:
    run = caller.submit_basket("simulate", input_data={"script": ["running:20@90", "completed"]})
    percents: set[int] = set()

    def has_moved() -> bool:
        view = caller.poll(run)
        if view["status"] == "running":
            percents.add(view["progress"]["percent"] or 0)
        return len({percent for percent in percents if 0 < percent < 90}) > 1

    wait_until(has_moved, 15, "its progress is seen to change")
    caller.post(f"/executions/{run}/cancel", {})


@pytest.mark.parametrize("script", [["queued:60"], ["running:60"], ["worker_lost", "running:60"]])
def test_a_cancel_works_in_every_phase(caller: ApiClient, script: list[str]) -> None:
    run = caller.submit_basket("simulate", input_data={"script": script})
    first = script[0].partition(":")[0].replace("worker_lost", "running")
    wait_until(lambda: caller.poll(run)["status"] == first, 5, f"{run} is {first}")
    assert caller.post(f"/executions/{run}/cancel", {}).status_code in {200, 202}
    assert caller.wait_done(run)["status"] == "cancelled"


def test_a_script_longer_than_the_timeout_of_its_step_times_out(caller: ApiClient) -> None:
    config = {"steps": [{"agent": "simulate", "timeout_s": 0.3}]}
    response = caller.post("/run-basket", {"config": config, "input_data": {"script": ["running:60"]}})
    view = caller.wait_done(response.json()["execution_id"])
    assert (view["error"]["error_code"], view["error"]["kind"]) == ("timeout", "timeout")


def test_without_input_it_is_done_within_two_seconds(caller: ApiClient) -> None:
    def took_s() -> float:
        began = time.monotonic()
        view = caller.wait_done(caller.submit_basket("simulate"))
        assert (view["status"], view["input_source"]) == ("completed", "sample")
        return time.monotonic() - began

    wait_until(lambda: took_s() < 2, 10, "one of them is, unless this machine is busy each time")


def test_a_held_run_that_is_retried_from_its_start_is_held_again(caller: ApiClient, runs: Mapping[str, str]) -> None:
    caller.wait_done(runs["held"])
    response = caller.post(f"/executions/{runs['held']}/retry", {"from": "start"})
    final_view = caller.wait_done(response.json()["execution_id"])
    assert final_view["status"] == "completed"
    assert held_s(final_view) >= 0.4

    long = caller.submit_basket("simulate", input_data={"script": ["queued:60", "completed"]})
    caller.post(f"/executions/{long}/cancel", {})
    again = caller.post(f"/executions/{long}/retry", {"from": "start"}).json()["execution_id"]
    view = caller.poll(again)
    assert (view["status"], view["waiting_for"]["reason"]) == ("queued", "queue")
    assert view["waiting_for"]["eta_ms"] > 0
    caller.post(f"/executions/{again}/cancel", {})


@pytest.mark.parametrize(
    ("input_data", "pointer"),
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
def test_an_invalid_script_is_refused_with_its_pointer(
    caller: ApiClient, input_data: dict[str, Any], pointer: str
) -> None:
    response = caller.post("/run-basket", {"basket_name": "simulate", "input_data": input_data})
    assert (response.status_code, response.json()["error_code"]) == (400, "validation_failed")
    assert pointer in [detail["pointer"] for detail in response.json()["details"]]


def test_the_name_is_reserved(caller: ApiClient) -> None:
    created = caller.post("/create-basket", {"name": "simulate", "agents": ["echo"]})
    assert (created.status_code, created.json()["error_code"]) == (409, "basket_exists")
    assert "reserved" in created.json()["detail"]
    deleted = caller.request("DELETE", "/baskets/simulate")
    assert (deleted.status_code, deleted.json()["error_code"]) == (400, "validation_failed")
    assert "reserved" in deleted.json()["detail"]
    assert caller.get("/baskets/simulate").json()["agents"] == ["simulate"]


def test_lost_workers_count_until_the_run_fails_with_worker_lost(caller: ApiClient, runs: Mapping[str, str]) -> None:
    view = caller.wait_done(runs["lost_for_good"])
    assert (view["status"], view["error"]["error_code"]) == ("failed", "worker_lost")
    assert (view["error"]["kind"], view["steps"][0]["attempts"]) == ("lost", 3)
