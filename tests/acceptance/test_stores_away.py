"""MongoDB or Redis stopped: quick and honest answers, polls as ever, and all goes on once it is back.

The short core; ``tests/faults`` has the other ways of dying, and what becomes of what ran meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.api_client import AGENTS, EVERY_PROCESS, Answer, Runs, asked, at_once, worst
from tests.stack import Stack
from tests.waiting import wait_until

UNKNOWN = "1763700000_0000000000000000"


def many_polled(runs: Runs, *ids: str) -> Answer:
    """What a poll of many is answered."""
    body = {"items": [{"execution_id": each} for each in ids]}
    return asked(lambda: requests.post(f"{runs.stack.url}/executions/poll", json=body, timeout=10))


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture
def runs(stack: Stack, tmp_path: Path) -> Iterator[Runs]:
    """A caller of the stack; whatever was taken away is back after the test, and nothing else was restarted."""
    processes = {name: stack.pid(name) for name in ("api", "worker")}
    yield Runs(stack, tmp_path / "counted")
    stack.mend()
    assert {name: stack.pid(name) for name in processes} == processes


@pytest.mark.parametrize("server", ["mongod", "redis"])
def test_without_a_server_submits_are_refused_in_time_and_polls_answered(stack: Stack, runs: Runs, server: str) -> None:
    kept = runs.submit("echo").execution_id
    runs.done(kept)
    stack.stop(server)
    wait_until(
        lambda: {answer.status for answer in at_once(runs.submit, EVERY_PROCESS)} == {503}, 5, "all have noticed"
    )
    submits = at_once(partial(runs.submit, "echo"), EVERY_PROCESS)
    many, beyond = many_polled(runs, kept), many_polled(runs, kept, UNKNOWN)
    poll, ready, health = runs.poll(kept), runs.get("/ready"), runs.get("/health")
    feeds = [runs.get("/executions/changes"), runs.get("/executions/changes?since=now"), runs.get("/consumers")]

    assert {(answer.status, answer.error_code) for answer in submits} == {(503, "unavailable")}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in submits)
    assert (poll.status, poll.body["status"]) == (200, "completed")
    assert (many.status, many.body["changed"][0]["status"]) == (200, "completed")
    if server == "redis":
        assert (beyond.status, beyond.body["not_found"]) == (200, [UNKNOWN])
    else:
        assert (beyond.status, beyond.error_code) == (503, "unavailable"), "what may exist is not called unknown"
    assert (ready.status, health.status) == (503, 200)
    assert health.body["status"] == {"mongod": "unhealthy", "redis": "degraded"}[server]
    assert {(feed.status, feed.error_code) for feed in feeds} == {
        "mongod": {(503, "unavailable")},
        "redis": {(200, None)},
    }[server]
    assert all("nothing was stored" in submit.body["detail"] for submit in submits)
    assert not any("stored" in feed.body.get("detail", "") for feed in feeds), "who reads has nothing stored"
    assert worst([*submits, poll, many, beyond, ready, health, *feeds]) < 3
    stack.start(server)
    wait_until(
        lambda: {answer.status for answer in at_once(runs.submit, EVERY_PROCESS)} == {202}, 15, "runs are accepted"
    )
    assert runs.done(runs.submit().execution_id)["status"] == "completed"
