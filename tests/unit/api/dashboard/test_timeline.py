"""The timeline of a run: its bars tell waiting, attempts, retries, lost workers and hand-backs apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.dashboard.timeline import build_timeline, format_duration

BEGAN = datetime(2026, 12, 2, 8, tzinfo=UTC)


def at(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat()


def view(*events: tuple[float, str], status: str = "completed", finished_s: float | None = 10) -> dict[str, Any]:
    attempts = 0
    logs = []
    for seconds, name in events:
        attempts += name == "started"
        logs.append({"step": "a", "event": f"step.{name}", "timestamp": at(seconds), "data": {"attempt": attempts}})
    return {
        "created_at": at(0),
        "finished_at": None if finished_s is None else at(finished_s),
        "steps": [{"step": "a", "agent": "a", "status": status, "attempts": attempts}],
        "logs": logs,
    }


def bars(run: dict[str, Any], now_s: float = 10) -> list[tuple[str, float, float]]:
    [line] = build_timeline(run, BEGAN + timedelta(seconds=now_s))
    return [(span.kind, span.x, span.width) for span in line.spans]


def test_a_run_waits_and_then_runs() -> None:
    assert bars(view((4, "started"), (10, "completed"))) == [("waiting", 0, 400), ("completed", 400, 600)]


def test_a_retry_a_lost_worker_and_a_hand_back_are_told_apart() -> None:
    events = [(1, "started"), (2, "retrying"), (3, "started"), (5, "worker_lost"), (6, "started"), (7, "released"),
              (8, "started"), (10, "failed")]  # fmt: skip
    kinds = [kind for kind, _, _ in bars(view(*events, status="failed"))]
    ends = ["retried", "lost", "released", "failed"]
    assert kinds == [kind for end in ends for kind in ("waiting", end)]


def test_what_has_not_ended_lasts_until_now() -> None:
    assert bars(view((5, "started"), status="running", finished_s=None), now_s=20)[-1] == ("running", 250, 750)
    assert bars(view(status="ready", finished_s=None), now_s=20) == [("waiting", 0, 1_000)]
    assert bars(view(status="skipped")) == []


def test_a_start_without_the_end_before_it_is_a_lost_attempt() -> None:
    """The line of its end may be older than the newest lines, which alone are there."""
    assert [kind for kind, _, _ in bars(view((0, "started"), (5, "started"), (10, "completed")))] == [
        "lost",
        "completed",
    ]


def test_a_moment_is_seen_and_nothing_leaves_the_picture() -> None:
    [(_, x, width)] = bars(view((0, "started"), (0, "completed")))
    assert (x, width) == (0, 4)
    assert all(x + width <= 1_000 for _, x, width in bars(view((12, "started"), (13, "completed"))))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 ms"), (0.0123, "12 ms"), (3.44, "3.4 s"), (125, "2 min 5 s"), (3_725, "1 h 2 min")],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
