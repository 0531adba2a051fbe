"""The statistics: what waits and runs, also what a worker has received; windows that survive every process."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest
import requests

from tests.api_client import RunClient
from tests.ops.operator import MANY, Operator
from tests.stack import Stack
from tests.waiting import wait_until


@pytest.fixture
def operator(stack: Stack, runs: RunClient) -> Operator:
    return Operator(stack)


def cancel(operator: Operator, *ids: str) -> None:
    for execution_id in ids:
        requests.post(f"{operator.stack.url}/executions/{execution_id}/cancel", timeout=5)


def test_a_message_that_has_left_the_list_and_is_not_begun_still_waits(operator: Operator, runs: RunClient) -> None:
    ids = [runs.submit("sleeper", seconds=60).execution_id for _ in range(4)]
    wait_until(lambda: all(operator.queue()["running"] == 2 for _ in range(MANY)), 10, "both slots are busy")
    operator.stack.pause("reconciler")  # it would offer them again
    operator.stack.redis().delete("default\x06\x163")
    time.sleep(1.1)  # a count is kept for a second
    figures = operator.queue()
    assert (figures["queued"], figures["running"], figures["workers"], figures["slots"]) == (2, 2, 1, 2)
    assert figures["wanted_workers"] == 2
    assert operator.queue(query="?slots_per_worker=1")["wanted_workers"] == 4
    assert figures["oldest_age_s"] > 0
    stats = operator.get("/executions/stats?queue=default")
    assert list(stats["queues"]) == ["default"]
    assert (stats["by_status"]["queued"], stats["by_status"]["running"]) == (2, 2)
    assert sum(counts["queued"] for counts in stats["baskets"].values()) == 2
    operator.stack.resume("reconciler")
    cancel(operator, *ids)
    nothing = {"queued": 0, "running": 0, "wanted_workers": 0, "oldest_age_s": None}
    # Each process of the API keeps its own count for a second.
    wait_until(lambda: all(operator.queue() | nothing == operator.queue() for _ in range(MANY)), 20, "nothing is left")


def test_a_run_that_waits_for_its_time_is_counted_by_status_and_wants_no_worker(
    operator: Operator, runs: RunClient
) -> None:
    scheduled = runs.submit("echo", run_after_s=60).execution_id
    time.sleep(1.1)  # a count is kept for a second
    stats = operator.get("/executions/stats")
    assert stats["by_status"]["scheduled"] == 1
    assert {name: figures["wanted_workers"] for name, figures in stats["queues"].items()} == {"default": 0, "long": 0}
    cancel(operator, scheduled)


def test_the_windows_survive_every_process_of_bucket(operator: Operator, runs: RunClient) -> None:
    client = operator.stack.redis()
    client.delete(*client.keys("metrics:window:*"))
    slept = runs.wait_done(runs.submit("sleeper", seconds=0.5).execution_id)
    runs.wait_done(runs.submit("raiser", kind="ValueError").execution_id)
    cancelled = runs.submit("echo", run_after_s=60).execution_id
    cancel(operator, cancelled)
    for name in ("api", "worker", "reconciler"):
        operator.stack.kill(name)
    for name in ("api", "worker", "reconciler"):
        operator.stack.start(name)
    stats = operator.get("/executions/stats")
    began_at, ended_at = (datetime.fromisoformat(slept[name]) for name in ("started_at", "finished_at"))
    took_ms = (ended_at - began_at).total_seconds() * 1_000
    for name, window in stats["windows"].items():
        counts = {kind: window[kind] for kind in ("submitted", "completed", "failed", "cancelled")}
        assert counts == {"submitted": 3, "completed": 1, "failed": 1, "cancelled": 1}, name
        assert window["failures"] == {"agent_error": 1}
        assert window["duration_ms"]["p99"] == pytest.approx(took_ms, rel=0.06)
    assert stats["by_status"]["failed"] == stats["windows"]["24h"]["failed"]
    assert "series" not in stats
    for window, slots_max in (("1h", 61), ("24h", 97)):
        slots = operator.get(f"/executions/stats?series={window}")["series"]
        assert len(slots) == slots_max
        assert [slot["at"] for slot in slots] == sorted(slot["at"] for slot in slots)
        for kind in ("submitted", "completed", "failed", "cancelled"):
            assert sum(slot[kind] for slot in slots) == stats["windows"][window][kind]
        assert max(slot["duration_ms"]["p99"] or 0 for slot in slots) == stats["windows"][window]["duration_ms"]["p99"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?queue=lang", "did you mean long?"), ("?queue=", "must be one of default, long"),
        ("?slots_per_worker=0", "from 1 to 1000"), ("?queues=long", "did you mean queue?"),
        ("?series=2h", "must be one of 1h, 24h"),
    ],
)  # fmt: skip
def test_a_query_that_is_not_known_is_refused(operator: Operator, query: str, words: str) -> None:
    refused = requests.get(f"{operator.stack.url}/executions/stats{query}", timeout=5)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "validation_failed")
    assert words in refused.json()["message"]


def test_stored_runs_do_not_make_it_slower(operator: Operator) -> None:
    """The count reads the runs that are not done alone, which the server's own plan shows."""
    executions = operator.stack.mongo()["executions"]
    done: list[dict[str, Any]] = [
        {"_id": f"{1_600_000_000 + at}_{at:016x}", "integrator": "public", "status": "completed", "basket_name": "old",
         "steps": {"s1": {"agent": "echo", "status": "completed"}}}
        for at in range(20_000)
    ]  # fmt: skip
    executions.insert_many(done)
    plan = operator.stack.mongo().command(
        "explain",
        {
            "aggregate": "executions",
            "pipeline": [{"$match": {"due_by": {"$exists": True}}}, {"$group": {"_id": "$status", "n": {"$sum": 1}}}],
            "hint": "due_by",
            "cursor": {},
        },
        verbosity="executionStats",
    )
    examined = str(plan).count("COLLSCAN")
    assert examined == 0
    began_at = time.monotonic()
    operator.get("/executions/stats")
    assert time.monotonic() - began_at < 0.5
    executions.delete_many({"basket_name": "old"})
