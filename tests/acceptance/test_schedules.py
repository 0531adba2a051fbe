"""Schedules, retry delays and deadlines are kept, even right after the submit, on a stack with long hand-offs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.client import AGENTS, ApiClient
from tests.stack import Stack

HANDOFF_S: Final = 15.0  # long after all of these times, even on a busy machine
# The reconciler checks twice within a heartbeat; its grace period of half a lease ends soon after the start.
SETTINGS: Final = {"BUCKET_HANDOFF_S": str(HANDOFF_S), "BUCKET_LEASE_S": "6", "BUCKET_HEARTBEAT_S": "3"}


@pytest.fixture(scope="module")
def caller(make_stack: Callable[..., Stack]) -> ApiClient:
    return ApiClient(make_stack(BUCKET_AGENTS_DIR=str(AGENTS), **SETTINGS))


def submit(caller: ApiClient, **body: Any) -> str:
    response = caller.post("/run-basket", {"config": {"agents": ["echo"]}, "input_data": {}} | body)
    assert response.status_code == 202, response.text
    return str(response.json()["execution_id"])


def after_s(view: dict[str, Any], moment: str) -> float:
    """Return the seconds from the submit of a run to one of its times."""
    duration = datetime.fromisoformat(view[moment]) - datetime.fromisoformat(view["created_at"])
    return duration.total_seconds()


def test_a_schedule_is_kept_even_if_it_is_near(caller: ApiClient) -> None:
    runs = {delay_s: submit(caller, run_after_s=delay_s) for delay_s in (0.5, 1.0, 2.0)}
    for delay_s, view in ((delay_s, caller.wait_done(run)) for delay_s, run in runs.items()):
        assert view["status"] == "completed"
        assert delay_s <= after_s(view, "started_at") < HANDOFF_S


def test_the_schedule_of_each_run_of_a_batch_is_kept(caller: ApiClient) -> None:
    item = {"config": {"agents": ["echo"]}, "input_data": {}, "run_after_s": 0.5}
    response = caller.post("/run-basket/batch", {"items": [item, item]})
    for view in (caller.wait_done(item_result["execution_id"]) for item_result in response.json()["items"]):
        assert 0.5 <= after_s(view, "started_at") < HANDOFF_S


def test_a_script_that_begins_queued_continues_on_time(caller: ApiClient) -> None:
    view = caller.wait_done(caller.submit_basket("simulate", input_data={"script": ["queued:0.5", "completed"]}))
    assert 0.5 <= after_s(view, "started_at") < HANDOFF_S


def test_a_step_is_retried_when_its_delay_is_over(caller: ApiClient, tmp_path: Path) -> None:
    input_data = {"path": str(tmp_path / "tries"), "failures": 1}
    steps = [{"agent": "flaky", "input": input_data, "retry": {"attempts": 2, "wait_s": 0.5}}]
    view = caller.wait_done(submit(caller, config={"steps": steps}))
    assert (view["status"], view["steps"][0]["attempts"]) == ("completed", 2)
    assert after_s(view, "finished_at") < HANDOFF_S


def test_a_deadline_ends_a_running_step_soon_after_it(caller: ApiClient) -> None:
    steps = [{"agent": "sleeper", "input": {"seconds": 60, "slice_s": 0.05}}]
    view = caller.wait_done(submit(caller, config={"steps": steps}, deadline_s=1))
    assert view["error"]["error_code"] == "deadline_exceeded"
    assert 1 <= after_s(view, "finished_at") < HANDOFF_S


def test_a_start_deadline_ends_a_waiting_run_soon_after_it(caller: ApiClient) -> None:
    caller.stack.stop("worker")
    view = caller.wait_done(submit(caller, start_deadline_s=1))
    assert view["error"]["error_code"] == "start_deadline_exceeded"
    assert 1 <= after_s(view, "finished_at") < HANDOFF_S
    caller.stack.start("worker")
