"""What is said of a run: durations, estimates, what it waits for, why it failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bucket_client import Execution
from bucket_client.cli.run_texts import (
    duration_text,
    failure_text,
    local_time,
    log_line_text,
    remaining_s,
    stage_text,
)

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


def run(**members: Any) -> Execution:
    return Execution.from_json({"execution_id": "1_a", "status": "running", "done": False, "rev": 1} | members)


def progress(percent: int, completed: int = 0, total: int = 1) -> dict[str, Any]:
    return {"percent": percent, "steps_total": total, "steps_completed": completed, "message": None}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "40 ms"), (2.44, "2.4 s"), (12.4, "12 s"), (59.6, "1:00"), (185, "3:05"), (7385, "2:03:05")],
)
def test_a_duration_is_as_exact_as_a_person_needs(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_the_expected_time_comes_from_the_percent_and_is_unknown_without_one() -> None:
    assert remaining_s(run(progress=progress(25)), 10) == 30
    assert remaining_s(run(progress=progress(0)), 10) is None
    assert remaining_s(run(status="queued", progress=progress(25)), 10) is None


@pytest.mark.parametrize(
    ("waiting_for", "text"),
    [
        ({"reason": "queue", "position": 3, "eta_ms": 5200}, "queued, 3 ahead, in about 4 s"),
        ({"reason": "queue", "position": None, "eta_ms": None}, "queued"),
        ({"reason": "queue", "position": 0, "eta_ms": 200}, "queued, soon"),
        ({"reason": "no_worker", "position": None, "eta_ms": None}, "no worker is there"),
        ({"reason": "schedule", "position": None, "eta_ms": 3_601_000}, "scheduled, in about 1:00:00"),
        ({"reason": "retry", "position": None, "eta_ms": 31_000}, "next attempt, in about 30 s"),
    ],
)
def test_a_run_that_waits_says_for_what_and_the_estimate_comes_nearer(waiting_for: dict[str, Any], text: str) -> None:
    assert stage_text(run(status="queued", waiting_for=waiting_for), since_seen_s=1) == text


def test_a_run_in_a_step_says_which_of_how_many_and_which_attempt() -> None:
    step = {"step": "sum", "agent": "summer", "attempt": 2}
    assert stage_text(run(current_step=step, progress=progress(50, 1, 3))) == "sum 2/3, attempt 2"
    assert stage_text(run(current_step={**step, "attempt": 1}, progress=progress(0))) == "sum"
    assert stage_text(run(status="completed", done=True)) == "completed"


def test_times_are_local_and_short_only_for_people() -> None:
    assert datetime.fromisoformat(local_time(NOW, short=False)) == NOW
    just_now = datetime.now(UTC) - timedelta(minutes=1)
    assert local_time(just_now, short=True) == just_now.astimezone().strftime("%H:%M:%S")
    assert local_time(datetime(2001, 2, 3, 12, tzinfo=UTC), short=True) == "2001-02-03"
    assert local_time(None, short=True) == "-"


def test_a_line_of_a_log_and_a_failure_are_one_line_whatever_they_contain() -> None:
    line = {"timestamp": "2026-11-21T10:00:00Z", "level": "info", "step": None, "agent_name": "a", "message": "x\n\x1b"}
    assert log_line_text(line, short=True).endswith(r"info    a: x\n\x1b")
    error = {"error_code": "no_luck", "message": "a\nb", "step": "sum", "attempt": 2}
    assert failure_text(run(status="failed", error=error)) == r"1_a failed in step sum, attempt 2: no_luck: a\nb"
