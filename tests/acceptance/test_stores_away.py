"""MongoDB or Redis stopped: submits are refused quickly, polls still work, and all continues when it is back.

The short core; ``tests/faults`` has the other ways to fail, and what happens to runs meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.api_client import AGENTS, EVERY_PROCESS, ApiResponse, RunClient, longest_s, send_in_parallel, send_timed
from tests.stack import Stack
from tests.waiting import wait_until

UNKNOWN = "1763700000_0000000000000000"


def poll_many(runs: RunClient, *ids: str) -> ApiResponse:
    """Poll many runs and return the response."""
    body = {"items": [{"execution_id": execution_id} for execution_id in ids]}
    return send_timed(lambda: requests.post(f"{runs.stack.url}/executions/poll", json=body, timeout=10))


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture
def runs(stack: Stack, tmp_path: Path) -> Iterator[RunClient]:
    """Yield a client of the stack; after the test the stopped server is back and no other process was restarted."""
    processes = {name: stack.pid(name) for name in ("api", "worker")}
    yield RunClient(stack, tmp_path / "counted")
    stack.repair()
    assert {name: stack.pid(name) for name in processes} == processes


@pytest.mark.parametrize("server", ["mongod", "redis"])
def test_without_a_server_submits_are_refused_in_time_and_polls_answered(
    stack: Stack, runs: RunClient, server: str
) -> None:
    known = runs.submit("echo").execution_id
    runs.wait_done(known)
    stack.stop(server)
    wait_until(
        lambda: {response.status for response in send_in_parallel(runs.submit, EVERY_PROCESS)} == {503},
        5,
        "all have noticed",
    )
    submits = send_in_parallel(partial(runs.submit, "echo"), EVERY_PROCESS)
    many, beyond = poll_many(runs, known), poll_many(runs, known, UNKNOWN)
    poll, ready, health = runs.poll(known), runs.get("/ready"), runs.get("/health")
    feeds = [runs.get("/executions/changes"), runs.get("/executions/changes?since=now"), runs.get("/consumers")]

    assert {(response.status, response.error_code) for response in submits} == {(503, "unavailable")}
    assert all(int(response.headers["Retry-After"]) >= 1 for response in submits)
    assert (poll.status, poll.body["status"]) == (200, "completed")
    assert (many.status, many.body["changed"][0]["status"]) == (200, "completed")
    if server == "redis":
        assert (beyond.status, beyond.body["not_found"]) == (200, [UNKNOWN])
    else:
        assert (beyond.status, beyond.error_code) == (503, "unavailable"), (
            "a run that may exist is not reported as unknown"
        )
    assert (ready.status, health.status) == (503, 200)
    assert health.body["status"] == {"mongod": "unhealthy", "redis": "degraded"}[server]
    assert {(feed.status, feed.error_code) for feed in feeds} == {
        "mongod": {(503, "unavailable")},
        "redis": {(200, None)},
    }[server]
    assert all("nothing was stored" in submit.body["detail"] for submit in submits)
    assert not any("stored" in feed.body.get("detail", "") for feed in feeds), (
        "a read says nothing about what was stored"
    )
    assert longest_s([*submits, poll, many, beyond, ready, health, *feeds]) < 3
    stack.start(server)
    wait_until(
        lambda: {response.status for response in send_in_parallel(runs.submit, EVERY_PROCESS)} == {202},
        15,
        "runs are accepted",
    )
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
