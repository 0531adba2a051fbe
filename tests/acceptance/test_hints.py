"""Poll hints: ``poll_after_ms`` learned from the durations of such runs, and the queue position of a waiting run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.domain.definitions.basket import SEQUENTIAL, Basket, BasketStep
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.live import duration_stats
from shared.live.redis_client import connect
from shared.live.views import view_key
from tests.acceptance.client import ApiClient
from tests.builders import unstarted_run
from tests.waiting import wait_until

A_DAY_S = 86_400
MILLISECOND = timedelta(milliseconds=1)
MANY_REQUESTS = 24  # requests reach both processes of the API, except in 1 of 8 million cases


def key_of(name: str) -> str:
    """Return the key of the duration samples of an inline basket with only the simulator."""
    step = BasketStep("simulate", "simulate")
    return duration_stats.run_samples_key(replace(unstarted_run(), basket=Basket(name, SEQUENTIAL, (step,))))


def submit(caller: ApiClient, name: str, *script: str, **fields: Any) -> dict[str, Any]:
    body = {"config": {"name": name, "agents": ["simulate"]}, "input_data": {"script": list(script)}} | fields
    response = caller.post("/run-basket", body)
    assert response.status_code == 202, response.text
    assert int(response.headers["Retry-After"]) == max(1, -(-response.json()["poll_after_ms"] // 1_000))
    accepted: dict[str, Any] = response.json()
    return accepted


def test_the_202_and_each_poll_use_the_durations_of_earlier_runs(short_lease_caller: ApiClient) -> None:
    with closing(connect(short_lease_caller.stack.redis_url)) as client:
        client.hset(key_of("learned"), mapping=dict.fromkeys(range(100), 20_000))
    run = submit(short_lease_caller, "learned", "running:60")["execution_id"]
    wait_until(
        lambda: all(short_lease_caller.poll(run)["poll_after_ms"] > 13_000 for _ in range(MANY_REQUESTS)),
        5,
        "it is learned",
    )
    poll_after_ms = submit(short_lease_caller, "learned", "completed")["poll_after_ms"]
    assert 20_000 < poll_after_ms < 22_500
    view = short_lease_caller.poll(run)
    assert 11_000 < view["poll_after_ms"] < 22_500, "what is left of twenty seconds"
    short_lease_caller.post(f"/executions/{run}/cancel", {})
    short_lease_caller.wait_done(run)


@pytest.mark.parametrize(("script", "bound"), [("queued:60", "start_deadline_s"), ("running:60", "deadline_s")])
def test_a_run_is_polled_right_after_its_deadline_whatever_earlier_runs_took(
    short_lease_caller: ApiClient, script: str, bound: str
) -> None:
    with closing(connect(short_lease_caller.stack.redis_url)) as client:
        client.hset(key_of("bound"), mapping=dict.fromkeys(range(100), 25_000))
    patient = submit(short_lease_caller, "bound", "running:60")["execution_id"]
    wait_until(
        lambda: all(short_lease_caller.poll(patient)["poll_after_ms"] > 13_000 for _ in range(MANY_REQUESTS)),
        5,
        "it is learned",
    )
    accepted = submit(short_lease_caller, "bound", script, **{bound: 3})
    view = short_lease_caller.poll(accepted["execution_id"])
    assert max(accepted["poll_after_ms"], view["poll_after_ms"]) < 4_000
    assert (
        short_lease_caller.wait_done(accepted["execution_id"])["error"]["error_code"]
        == f"{bound.removesuffix('_s')}_exceeded"
    )
    short_lease_caller.post(f"/executions/{patient}/cancel", {})
    short_lease_caller.wait_done(patient)


def test_the_duration_of_a_run_is_stored_when_it_ends(short_lease_caller: ApiClient) -> None:
    view = short_lease_caller.wait_done(submit(short_lease_caller, "noted", "running:0.3", "completed")["execution_id"])
    duration = datetime.fromisoformat(view["finished_at"]) - datetime.fromisoformat(view["started_at"])
    with closing(connect(short_lease_caller.stack.redis_url)) as client:
        wait_until(lambda: duration_stats.read_samples(client, [key_of("noted")])[key_of("noted")], 5, "it is stored")
        sample = duration_stats.read_samples(client, [key_of("noted")])[key_of("noted")]
    assert sample == (duration / timedelta(seconds=1),)


def test_no_poll_reads_the_duration_samples(short_lease_caller: ApiClient) -> None:
    run = submit(short_lease_caller, "monitored", "running:30")["execution_id"]
    wait_until(lambda: short_lease_caller.poll(run)["status"] == "running", 5, "it runs")
    with closing(connect(short_lease_caller.stack.redis_url)) as client, client.monitor() as monitor:
        for _ in range(40):
            short_lease_caller.poll(run)
        client.set("the:end", "1")
        commands = []
        for command in monitor.listen():
            if "the:end" in command["command"]:
                break
            commands.append(command["command"])
    assert sum(command == f"GET execution:{run}" for command in commands) == 40
    assert sum("durations" in command for command in commands) < 10
    short_lease_caller.post(f"/executions/{run}/cancel", {})
    short_lease_caller.wait_done(run)


@contextmanager
def no_worker_takes(caller: ApiClient) -> Iterator[None]:
    """Freeze the worker, and the reconciler too, which would offer again what the frozen worker has received."""
    for name in ("reconciler", "worker"):
        caller.stack.pause(name)
    try:
        yield
    finally:
        for name in ("reconciler", "worker"):
            caller.stack.resume(name)


def test_a_queued_run_shows_how_many_are_ahead_and_never_wrongly_zero(short_lease_caller: ApiClient) -> None:
    with no_worker_takes(short_lease_caller):
        runs = [submit(short_lease_caller, "queue", "completed")["execution_id"] for _ in range(8)]

        def has_positions() -> bool:
            waiting = [short_lease_caller.poll(run)["waiting_for"] for run in runs]
            assert {hint["reason"] for hint in waiting} == {"queue"}
            assert {hint["eta_ms"] for hint in waiting} == {None}, "nothing leaves the queue"
            # The connection of the frozen worker may have received the first messages already.
            first = next((index for index, hint in enumerate(waiting) if hint["position"] is not None), 0)
            positions = [hint["position"] for hint in waiting[first:]]
            assert {index for index, hint in enumerate(positions) if hint == 0} <= {0}, "never wrongly zero"
            # Each process of the API reads the queue for itself, ten times a second.
            return (
                len(positions) >= 5
                and positions[0] == 0
                and all(hint is not None and 1 <= hint < len(positions) for hint in positions[1:])
                and positions[-1] > positions[1]
            )

        wait_until(has_positions, 10, "positions are shown, never beyond the length of the queue")
    for run in runs:
        assert short_lease_caller.wait_done(run)["status"] == "completed"


def test_a_moving_queue_shows_when_a_run_will_start(short_lease_caller: ApiClient) -> None:
    item = {
        "config": {"name": "moving", "agents": ["simulate"]},
        "input_data": {"script": ["running:0.2", "completed"]},
    }
    # Enough that the queue lasts longer than a busy machine may pause.
    batch = short_lease_caller.post("/run-basket/batch", {"items": [item] * 60}).json()
    runs = [item_result["execution_id"] for item_result in batch["items"]]
    etas_ms: list[int] = []

    def has_eta() -> bool:
        waiting = short_lease_caller.poll(runs[-1])["waiting_for"]
        if waiting and waiting["eta_ms"] is not None:
            etas_ms.append(waiting["eta_ms"])
        return bool(etas_ms)

    wait_until(has_eta, 15, "an eta is shown")
    assert 0 < etas_ms[0] < 60_000
    for run in runs[::-1]:
        short_lease_caller.post(f"/executions/{run}/cancel", {})
    for run in runs:
        short_lease_caller.wait_done(run)
    wait_until(lambda: short_lease_caller.stack.redis().llen("default") == 0, 60, "the next test finds an empty queue")


def test_a_step_that_waits_for_a_retry_says_so_and_for_how_long(short_lease_caller: ApiClient, tmp_path: Path) -> None:
    # It waits for a random part of a day: less than the duration of this test is one chance in thousands.
    retry_policy = {"attempts": 2, "wait_s": A_DAY_S, "wait_max_s": A_DAY_S, "budget_s": 2 * A_DAY_S}
    input_data = {"path": str(tmp_path / "tries"), "failures": 1}
    body = {"config": {"steps": [{"agent": "flaky", "input": input_data, "retry": retry_policy}]}}
    run = short_lease_caller.post("/run-basket", body).json()["execution_id"]
    wait_until(
        lambda: (short_lease_caller.poll(run)["waiting_for"] or {}).get("reason") == "retry",
        10,
        "it waits for the retry",
    )
    stored = short_lease_caller.stack.mongo().executions.find_one({"_id": run})
    assert stored is not None
    due_by = stored["steps"]["flaky"]["due_by"].replace(tzinfo=UTC)
    for forgotten in (False, True):
        if forgotten:
            short_lease_caller.stack.redis().delete(view_key(PUBLIC_INTEGRATOR, run))
        most_ms = (due_by - datetime.now(UTC)) / MILLISECOND
        response = short_lease_caller.get(f"/execution-logs/{run}")
        least_ms = (due_by - datetime.now(UTC)) / MILLISECOND
        view = response.json()
        assert (view["status"], view["done"], view["steps"][0]["attempts"]) == ("running", False, 1)
        assert view["waiting_for"] == {"reason": "retry", "position": None, "eta_ms": view["waiting_for"]["eta_ms"]}
        assert least_ms - 5_000 < view["waiting_for"]["eta_ms"] < most_ms + 5_000
        assert 0 < view["waiting_for"]["eta_ms"] <= A_DAY_S * 1_000
        assert (view["poll_after_ms"], response.headers["Retry-After"]) == (30_000, "30")
    assert short_lease_caller.post(f"/executions/{run}/cancel", {}).status_code == 200, "nothing of it runs"
    assert short_lease_caller.poll(run)["waiting_for"] is None


@pytest.mark.parametrize("path", ["/execution-logs/{}", "/executions/{}", "/api/v1/execution-logs/{}"])
def test_no_client_sees_the_trailer(short_lease_caller: ApiClient, path: str) -> None:
    run = submit(short_lease_caller, "shown", "queued:2")["execution_id"]
    for response in (
        short_lease_caller.get(path.format(run)),
        short_lease_caller.get(path.format(run), params={"limit": 1}),
    ):
        assert not {"timing", "resting"} & set(response.json())
    short_lease_caller.post(f"/executions/{run}/cancel", {})
