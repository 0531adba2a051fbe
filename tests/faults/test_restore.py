"""MongoDB restored from an older backup, by the steps of docs/operate.md: what pollers and readers of the feed see."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.api_client import AGENTS, RunClient
from tests.stack import Stack
from tests.waiting import wait_until

OURS = ("api", "worker", "reconciler")


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture
def runs(stack: Stack, tmp_path: Path) -> Iterator[RunClient]:
    yield RunClient(stack, tmp_path / "counted")
    stack.repair()


def feed(stack: Stack, since: str | None = None) -> dict[str, Any]:
    response = requests.get(f"{stack.url}/executions/changes", params={"since": since} if since else {}, timeout=10)
    return {"status": response.status_code, **response.json()}


def caught_up_cursor(stack: Stack) -> str:
    page: dict[str, Any] = {}

    def has_caught_up() -> bool:
        nonlocal page
        page = feed(stack, page.get("next_since"))
        return bool(page["caught_up"])

    wait_until(has_caught_up, 20, "the feed has caught up")
    return str(page["next_since"])


def test_after_a_restore_polls_are_truthful_and_every_reader_can_catch_up(stack: Stack, runs: RunClient) -> None:
    data, backup = stack.root / "mongod", stack.root / "backup"
    before = runs.submit().execution_id
    runs.wait_done(before)
    under_way = runs.submit("counter", run_after_s=12).execution_id

    stack.stop("mongod")
    shutil.copytree(data, backup)
    stack.start("mongod")
    stack.repair()

    # A process may notice the outage only when it is over, and refuse for a moment.
    key = "submitted after the backup"
    lost = runs.submit_until_accepted(key)[-1].execution_id
    runs.wait_done(lost)
    cursor = caught_up_cursor(stack)

    for name in OURS:
        stack.stop(name)
    stack.stop("mongod")
    shutil.rmtree(data)
    backup.rename(data)
    stack.start("mongod")
    stack.mongo()["changes"].drop()
    stack.redis().flushdb()
    for name in OURS:
        stack.start(name)

    assert runs.poll(before).body["status"] == "completed"
    assert requests.get(f"{stack.url}/execution-logs/{lost}", timeout=5).status_code == 404
    again = runs.submit_until_accepted(key)[-1].execution_id
    assert again != lost, "nobody knows the key any more, so the run is made anew"
    assert runs.wait_done(again)["status"] == "completed"
    assert runs.wait_done(under_way)["status"] == "completed", "the reconciler goes on with it"

    expired = feed(stack, cursor)
    assert (expired["status"], expired["error_code"]) == (410, "cursor_expired")
    resync = expired["resync"]
    listed = requests.get(f"{stack.url}{resync['list']}", timeout=10).json()["executions"]
    assert {before, under_way, again} <= {row["execution_id"] for row in listed}
    assert feed(stack, resync["since"])["status"] == 200
