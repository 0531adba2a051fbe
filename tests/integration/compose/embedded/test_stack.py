"""The whole stack without stand-ins: started, broken and repaired process by process, and by ``bucketd up``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compose.embedded import selftest
from compose.embedded.bucket_process_plans import fetch_json
from tests.stack import Stack
from tests.waiting import descendants, is_paused, is_running, wait_until


def submit(stack: Stack) -> str:
    return str(fetch_json(f"{stack.url}/run-basket", selftest.EXAMPLE)["execution_id"])


def poll(stack: Stack, execution_id: str) -> Any:
    return fetch_json(f"{stack.url}/execution-logs/{execution_id}")


def test_the_stack_completes_a_run_and_lets_the_test_look_inside(stack: Stack) -> None:
    execution_id = submit(stack)
    wait_until(lambda: poll(stack, execution_id)["done"])
    assert stack.mongo()["executions"].count_documents({"_id": execution_id}) == 1
    assert stack.redis().ping()
    assert "reconciler" in stack.logs("reconciler")


def test_a_stopped_worker_takes_no_work_until_it_is_started(stack: Stack) -> None:
    stack.stop("worker")
    assert stack.exit_code("worker") == 0
    execution_id = submit(stack)
    assert poll(stack, execution_id)["status"] == "queued"
    stack.start("worker")
    wait_until(lambda: poll(stack, execution_id)["done"])


def test_the_children_of_a_killed_worker_end_with_it(stack: Stack) -> None:
    family = {stack.pid("worker"), *descendants(stack.pid("worker"))}
    assert len(family) == 3, "the main process and two slots"
    stack.kill("worker")
    wait_until(lambda: not any(map(is_running, family)))
    stack.repair()
    assert stack.pid("worker") not in family


def test_a_paused_worker_continues_when_it_is_resumed(stack: Stack) -> None:
    stack.pause("worker")
    wait_until(lambda: is_paused(stack.pid("worker")))
    execution_id = submit(stack)
    time.sleep(0.3)  # no event to wait for: the test checks that nothing happens
    assert poll(stack, execution_id)["status"] == "queued"
    stack.resume("worker")
    wait_until(lambda: poll(stack, execution_id)["done"])


@pytest.mark.parametrize("name", ["redis", "mongod"])
def test_servers_come_back_under_the_same_address(stack: Stack, name: str) -> None:
    execution_id = submit(stack)
    wait_until(lambda: poll(stack, execution_id)["done"])
    stack.stop(name)
    stack.repair()
    assert poll(stack, execution_id)["status"] == "completed"


def test_bucketd_up_runs_the_real_thing_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "said"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", "from compose.cli import main; main()", "up", "--data", str(tmp_path / "data")],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PORT": "0"},
        )
    try:
        wait_until(lambda: "Ctrl-C stops everything" in output.read_text() or process.poll() is not None, 30)
        match = re.search(r"  API     (\S+)", output.read_text())
        assert match, output.read_text()
        family = descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, family)), within_s=5)
    finally:
        process.kill()
        process.wait()
