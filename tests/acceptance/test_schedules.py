"""What waits for a moment begins, or ends, at it, however lately it was submitted: on a stack of long hand-offs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.client import AGENTS, Caller
from tests.stack import Stack

HANDOFF_S: Final = 15.0  # long after all of these moments, even where this machine stands still for a while
# Two looks lie well within a heartbeat, and a look is half of one; half a lease is over soon after the start.
SETTINGS: Final = {"BUCKET_HANDOFF_S": str(HANDOFF_S), "BUCKET_LEASE_S": "6", "BUCKET_HEARTBEAT_S": "3"}


@pytest.fixture(scope="module")
def caller(make_stack: Callable[..., Stack]) -> Caller:
    return Caller(make_stack(BUCKET_AGENTS_DIR=str(AGENTS), **SETTINGS))


def submit(caller: Caller, **body: Any) -> str:
    answer = caller.post("/run-basket", {"config": {"agents": ["echo"]}, "input_data": {}} | body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["execution_id"])


def after_s(polled: dict[str, Any], moment: str) -> float:
    """How long after its submit a run came to a moment."""
    took = datetime.fromisoformat(polled[moment]) - datetime.fromisoformat(polled["created_at"])
    return took.total_seconds()


def test_a_schedule_is_kept_however_near_it_is(caller: Caller) -> None:
    runs = {delay_s: submit(caller, run_after_s=delay_s) for delay_s in (0.5, 1.0, 2.0)}
    for delay_s, polled in ((delay_s, caller.finished(run)) for delay_s, run in runs.items()):
        assert polled["status"] == "completed"
        assert delay_s <= after_s(polled, "started_at") < HANDOFF_S


def test_so_is_that_of_each_run_of_a_batch(caller: Caller) -> None:
    item = {"config": {"agents": ["echo"]}, "input_data": {}, "run_after_s": 0.5}
    answer = caller.post("/run-basket/batch", {"items": [item, item]})
    for polled in (caller.finished(told["execution_id"]) for told in answer.json()["items"]):
        assert 0.5 <= after_s(polled, "started_at") < HANDOFF_S


def test_a_script_that_begins_queued_is_played_on_at_its_moment(caller: Caller) -> None:
    polled = caller.finished(caller.run("simulate", input_data={"script": ["queued:0.5", "completed"]}))
    assert 0.5 <= after_s(polled, "started_at") < HANDOFF_S


def test_a_step_is_tried_again_once_its_rest_is_over(caller: Caller, tmp_path: Path) -> None:
    given = {"path": str(tmp_path / "tries"), "failures": 1}
    steps = [{"agent": "flaky", "input": given, "retry": {"attempts": 2, "wait_s": 0.5}}]
    polled = caller.finished(submit(caller, config={"steps": steps}))
    assert (polled["status"], polled["steps"][0]["attempts"]) == ("completed", 2)
    assert after_s(polled, "finished_at") < HANDOFF_S


def test_a_deadline_ends_what_runs_soon_after_it(caller: Caller) -> None:
    steps = [{"agent": "sleeper", "input": {"seconds": 60, "slice_s": 0.05}}]
    polled = caller.finished(submit(caller, config={"steps": steps}, deadline_s=1))
    assert polled["error"]["error_code"] == "deadline_exceeded"
    assert 1 <= after_s(polled, "finished_at") < HANDOFF_S


def test_a_start_deadline_ends_what_nobody_began_soon_after_it(caller: Caller) -> None:
    caller.stack.stop("worker")
    polled = caller.finished(submit(caller, start_deadline_s=1))
    assert polled["error"]["error_code"] == "start_deadline_exceeded"
    assert 1 <= after_s(polled, "finished_at") < HANDOFF_S
    caller.stack.start("worker")
