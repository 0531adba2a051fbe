"""The whole stack without stand-ins: started, broken and repaired process by process, and by ``bucketd up``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks.harness.cpu_time import children_of
from compose.embedded import api_port, selftest
from compose.embedded.bucket_process_plans import fetch_json
from tests.bucketd_up import bucketd_up
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


def test_no_thread_runs_in_the_master_of_the_api_because_no_fork_copies_threads(stack: Stack) -> None:
    threads = {name: len([*Path(f"/proc/{stack.pid(name)}/task").iterdir()]) for name in ("api", "reconciler")}
    assert (threads["api"], threads["reconciler"] > 1) == (1, True)


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


@pytest.mark.parametrize("start", ["start", "reload"])
def test_the_first_submit_that_reaches_a_new_process_is_accepted(stack: Stack, start: str) -> None:
    if start == "reload":
        os.kill(stack.pid("api"), signal.SIGHUP)
    else:
        stack.stop("api")
        stack.start("api", wait=False)
    # Also after a reload the old processes may be those that reply first, so submit until the new ones surely did.
    due_by, statuses = time.monotonic() + 5, []
    while time.monotonic() < due_by and len(statuses) < 100:
        with suppress(requests.ConnectionError):
            statuses.append(requests.post(f"{stack.url}/run-basket", json=selftest.EXAMPLE, timeout=5).status_code)
    assert statuses
    assert set(statuses) == {202}


def test_the_api_is_upgraded_in_place(stack: Stack, tmp_path: Path) -> None:
    port = str(api_port.pick_port("127.0.0.1", 0))
    plan = stack.plan("api", PORT=port, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    with (tmp_path / "log").open("wb") as log:
        old = subprocess.Popen(plan.argv, env=dict(plan.env), stdout=log, stderr=log, start_new_session=True)
    url = api_port.local_url("127.0.0.1", int(port))
    try:
        wait_until(lambda: answers(url), 20, "the old master serves")
        old.send_signal(signal.SIGUSR2)
        wait_until(lambda: any(map(children_of, children_of(old.pid))), 20, "the new master has workers")
        (new,) = filter(children_of, children_of(old.pid))
        old.terminate()
        assert old.wait(20) == 0
        wait_until(lambda: answers(url), 10, "the new master serves alone")
        assert requests.post(f"{url}/run-basket", json=selftest.EXAMPLE, timeout=5).status_code == 202
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: not is_running(new), 20, "the new master ends in order")
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(old.pid, signal.SIGKILL)
        old.wait()


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/ready", timeout=5).ok
    except requests.ConnectionError:
        return False


def test_every_line_of_the_logs_is_json(stack: Stack) -> None:
    stack.stop("worker")
    stack.repair()
    lines = [(name, line) for name in ("api", "worker", "reconciler") for line in stack.logs(name).splitlines()]
    assert {name for name, _ in lines} == {"api", "worker", "reconciler"}
    for name, line in lines:
        assert line.startswith("{"), (name, line)
        assert "SecurityWarning" not in line


@pytest.mark.parametrize("name", ["redis", "mongod"])
def test_servers_come_back_under_the_same_address(stack: Stack, name: str) -> None:
    execution_id = submit(stack)
    wait_until(lambda: poll(stack, execution_id)["done"])
    stack.stop(name)
    stack.repair()
    assert poll(stack, execution_id)["status"] == "completed"


def test_bucketd_up_runs_the_real_thing_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    with bucketd_up(tmp_path) as (process, _):
        family = descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, family)), within_s=5)


def test_bucketd_up_comes_up_without_the_example_and_behind_long_runs(
    tmp_path: Path, redis_url: str, mongodb_url: str
) -> None:
    # The servers keep the queue between the two starts; the runs need not be waited for.
    servers = {"REDIS_URL": redis_url, "MONGODB_URL": mongodb_url, "BUCKET_DRAIN_S": "0.5"}
    with bucketd_up(tmp_path, **servers) as (_, url):
        assert requests.delete(f"{url}/baskets/working_test", timeout=5).status_code == 200
        long_run = {"agent_name": "simulate", "input_data": {"script": ["running:60"]}}
        accepted = [requests.post(f"{url}/run-agent", json=long_run, timeout=5).json() for _ in range(2)]
        for run in accepted:  # else a message that is under way at the end is sent again later than the self-test's
            status_url = url + run["status_url"]
            wait_until(lambda at=status_url: fetch_json(at)["status"] == "running", 20, "both run")  # type: ignore[misc]
    with bucketd_up(tmp_path, **servers) as (_, url):
        assert requests.get(f"{url}/baskets/working_test", timeout=5).status_code == 404
        assert "The self-test run was still queued after 5 s and was cancelled" in (tmp_path / "said").read_text()
        listed = requests.get(f"{url}/executions?tag=self-test&status=cancelled", timeout=5).json()
        assert len(listed["executions"]) == 1


def test_the_line_with_the_client_that_bucketd_up_prints_works_as_it_is(tmp_path: Path) -> None:
    with bucketd_up(tmp_path):
        [line] = [text for text in (tmp_path / "said").read_text().splitlines() if "--wait" in text]
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["analysis"]["total"] == 700  # that of the sample input


def test_bucketd_up_goes_on_when_nobody_reads_its_output(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as out, bucketd_up(tmp_path, out) as (process, url):
        os.close(reader)
        redis_server = next(pid for pid in descendants(process.pid) if "unixsocket" in command_of(pid))
        os.kill(redis_server, signal.SIGKILL)
        wait_until(lambda: not is_running(redis_server))
        # It warned of the death, to nobody, and started Redis again.
        wait_until(lambda: fetch_json(f"{url}/health")["status"] == "healthy", 20, "all is well again")
        assert process.poll() is None
    assert process.returncode == 0


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    except OSError:
        return ""  # it has just ended
