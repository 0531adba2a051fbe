"""When to come back: learnt from what such runs took, told by the 202 already; and where in its queue a run waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.domain.definitions.basket import SEQUENTIAL, Basket, BasketStep
from shared.live import duration_stats
from shared.live.redis_client import connect
from shared.live.views import view_key
from tests.acceptance.client import Caller
from tests.builders import blank
from tests.waiting import wait_until

A_DAY_S = 86_400
MILLISECOND = timedelta(milliseconds=1)
LOOKS = 24  # both processes of the API are asked, but for one case in 8 million


def key_of(name: str) -> str:
    """The key of the runs of an inline basket of the simulator alone."""
    step = BasketStep("simulate", "simulate")
    return duration_stats.run_samples_key(replace(blank(), basket=Basket(name, SEQUENTIAL, (step,))))


def submitted(caller: Caller, name: str, *script: str, **given: Any) -> dict[str, Any]:
    body = {"config": {"name": name, "agents": ["simulate"]}, "input_data": {"script": list(script)}} | given
    answer = caller.post("/run-basket", body)
    assert answer.status_code == 202, answer.text
    assert int(answer.headers["Retry-After"]) == max(1, -(-answer.json()["poll_after_ms"] // 1_000))
    accepted: dict[str, Any] = answer.json()
    return accepted


def test_the_202_and_each_poll_go_by_what_such_runs_took_before(brisk: Caller) -> None:
    with closing(connect(brisk.stack.redis_url)) as client:
        client.hset(key_of("learnt"), mapping=dict.fromkeys(range(100), 20_000))
    run = submitted(brisk, "learnt", "running:60")["execution_id"]
    wait_until(lambda: all(brisk.poll(run)["poll_after_ms"] > 13_000 for _ in range(LOOKS)), 5, "it is learnt")
    told = submitted(brisk, "learnt", "completed")["poll_after_ms"]
    assert 20_000 < told < 22_500
    polled = brisk.poll(run)
    assert 11_000 < polled["poll_after_ms"] < 22_500, "what is left of twenty seconds"
    brisk.post(f"/executions/{run}/cancel", {})
    brisk.finished(run)


@pytest.mark.parametrize(("script", "bound"), [("queued:60", "start_deadline_s"), ("running:60", "deadline_s")])
def test_a_run_is_polled_right_after_its_deadline_whatever_such_runs_took(
    brisk: Caller, script: str, bound: str
) -> None:
    with closing(connect(brisk.stack.redis_url)) as client:
        client.hset(key_of("bound"), mapping=dict.fromkeys(range(100), 25_000))
    patient = submitted(brisk, "bound", "running:60")["execution_id"]
    wait_until(lambda: all(brisk.poll(patient)["poll_after_ms"] > 13_000 for _ in range(LOOKS)), 5, "it is learnt")
    accepted = submitted(brisk, "bound", script, **{bound: 3})
    polled = brisk.poll(accepted["execution_id"])
    assert max(accepted["poll_after_ms"], polled["poll_after_ms"]) < 4_000
    assert brisk.finished(accepted["execution_id"])["error"]["error_code"] == f"{bound.removesuffix('_s')}_exceeded"
    brisk.post(f"/executions/{patient}/cancel", {})
    brisk.finished(patient)


def test_how_long_a_run_took_is_noted_where_it_ends(brisk: Caller) -> None:
    polled = brisk.finished(submitted(brisk, "noted", "running:0.3", "completed")["execution_id"])
    took = datetime.fromisoformat(polled["finished_at"]) - datetime.fromisoformat(polled["started_at"])
    with closing(connect(brisk.stack.redis_url)) as client:
        wait_until(lambda: duration_stats.read_samples(client, [key_of("noted")])[key_of("noted")], 5, "it is noted")
        sample = duration_stats.read_samples(client, [key_of("noted")])[key_of("noted")]
    assert sample == (took / timedelta(seconds=1),)


def test_no_poll_reads_what_was_learnt(brisk: Caller) -> None:
    run = submitted(brisk, "monitored", "running:30")["execution_id"]
    wait_until(lambda: brisk.poll(run)["status"] == "running", 5, "it runs")
    with closing(connect(brisk.stack.redis_url)) as client, client.monitor() as monitor:
        for _ in range(40):
            brisk.poll(run)
        client.set("the:end", "1")
        commands = []
        for command in monitor.listen():
            if "the:end" in command["command"]:
                break
            commands.append(command["command"])
    assert sum(command == f"GET execution:{run}" for command in commands) == 40
    assert sum("durations" in command for command in commands) < 10
    brisk.post(f"/executions/{run}/cancel", {})
    brisk.finished(run)


@contextmanager
def nobody_takes(caller: Caller) -> Iterator[None]:
    """Freeze the worker, and the reconciler too, that would offer again what the frozen one was handed."""
    for name in ("reconciler", "worker"):
        caller.stack.pause(name)
    try:
        yield
    finally:
        for name in ("reconciler", "worker"):
            caller.stack.resume(name)


def test_a_queued_run_is_told_how_many_are_ahead_and_never_wrongly_none(brisk: Caller) -> None:
    with nobody_takes(brisk):
        runs = [submitted(brisk, "queue", "completed")["execution_id"] for _ in range(8)]

        def is_told() -> bool:
            waiting = [brisk.poll(run)["waiting_for"] for run in runs]
            assert {told["reason"] for told in waiting} == {"queue"}
            assert {told["eta_ms"] for told in waiting} == {None}, "nothing leaves the line"
            # The frozen worker's connection may have been handed the first ones before it was asked.
            first = next((place for place, told in enumerate(waiting) if told["position"] is not None), 0)
            positions = [told["position"] for told in waiting[first:]]
            assert {place for place, told in enumerate(positions) if told == 0} <= {0}, "never wrongly none"
            # Each process of the API looks at the line for itself, ten times a second.
            return (
                len(positions) >= 5
                and positions[0] == 0
                and all(told is not None and 1 <= told < len(positions) for told in positions[1:])
                and positions[-1] > positions[1]
            )

        wait_until(is_told, 10, "estimates are told, never beyond the line")
    for run in runs:
        assert brisk.finished(run)["status"] == "completed"


def test_a_line_that_moves_tells_when_a_run_will_be_taken(brisk: Caller) -> None:
    item = {
        "config": {"name": "moving", "agents": ["simulate"]},
        "input_data": {"script": ["running:0.2", "completed"]},
    }
    # So many that the line lasts for longer than this machine may stand still.
    batch = brisk.post("/run-basket/batch", {"items": [item] * 60}).json()
    runs = [each["execution_id"] for each in batch["items"]]
    told: list[int] = []

    def is_told() -> bool:
        waiting = brisk.poll(runs[-1])["waiting_for"]
        if waiting and waiting["eta_ms"] is not None:
            told.append(waiting["eta_ms"])
        return bool(told)

    wait_until(is_told, 15, "an eta is told")
    assert 0 < told[0] < 60_000
    for run in runs[::-1]:
        brisk.post(f"/executions/{run}/cancel", {})
    for run in runs:
        brisk.finished(run)
    wait_until(lambda: brisk.stack.redis().llen("default") == 0, 60, "the next test finds no line before it")


def test_a_step_that_rests_before_its_next_try_says_so_and_for_how_long(brisk: Caller, tmp_path: Path) -> None:
    # It rests for any part of a day: that it should be less than what this test takes is one chance in thousands.
    rests = {"attempts": 2, "wait_s": A_DAY_S, "wait_max_s": A_DAY_S, "budget_s": 2 * A_DAY_S}
    given = {"path": str(tmp_path / "tries"), "failures": 1}
    body = {"config": {"steps": [{"agent": "flaky", "input": given, "retry": rests}]}}
    run = brisk.post("/run-basket", body).json()["execution_id"]
    wait_until(lambda: (brisk.poll(run)["waiting_for"] or {}).get("reason") == "retry", 10, "it rests")
    stored = brisk.stack.mongo().executions.find_one({"_id": run})
    assert stored is not None
    due_by = stored["steps"]["flaky"]["due_by"].replace(tzinfo=UTC)
    for forgotten in (False, True):
        if forgotten:
            brisk.stack.redis().delete(view_key(run))
        most_ms = (due_by - datetime.now(UTC)) / MILLISECOND
        answer = brisk.get(f"/execution-logs/{run}")
        least_ms = (due_by - datetime.now(UTC)) / MILLISECOND
        polled = answer.json()
        assert (polled["status"], polled["done"], polled["steps"][0]["attempts"]) == ("running", False, 1)
        assert polled["waiting_for"] == {"reason": "retry", "position": None, "eta_ms": polled["waiting_for"]["eta_ms"]}
        assert least_ms - 5_000 < polled["waiting_for"]["eta_ms"] < most_ms + 5_000
        assert 0 < polled["waiting_for"]["eta_ms"] <= A_DAY_S * 1_000
        assert (polled["poll_after_ms"], answer.headers["Retry-After"]) == (30_000, "30")
    assert brisk.post(f"/executions/{run}/cancel", {}).status_code == 200, "nothing of it runs"
    assert brisk.poll(run)["waiting_for"] is None


@pytest.mark.parametrize("path", ["/execution-logs/{}", "/executions/{}", "/api/v1/execution-logs/{}"])
def test_no_client_is_shown_the_mark(brisk: Caller, path: str) -> None:
    run = submitted(brisk, "shown", "queued:2")["execution_id"]
    for told in (brisk.get(path.format(run)), brisk.get(path.format(run), params={"limit": 1})):
        assert not {"timing", "resting"} & set(told.json())
    brisk.post(f"/executions/{run}/cancel", {})
