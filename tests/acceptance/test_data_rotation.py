"""Rotation of encryption keys as docs/data.md describes it, with live processes: no run is lost, the old key may go."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from shared.sealing import Sealer, input_place, parse_key_ring
from tests.acceptance.client import AGENTS, ApiClient
from tests.stack import Stack
from tests.step_gate import step_gate
from tests.stored_text import places_with
from tests.waiting import wait_until

OLD: Final = f"retiring-2026:{base64.b64encode(bytes(range(32))).decode()}"
NEW: Final = f"current-2027:{base64.b64encode(bytes(range(1, 33))).decode()}"
WORDS: Final = "words of the caller"
PIN: Final = "a pin that stays within"
WAITING: Final = 300
"""Runs that wait for their time: so many batches that the command is killed long before the last one."""
LARGE: Final = 60_000
"""So often the words are over 1 MiB, which is stored apart from the run."""
QUICK_RESTARTS: Final = {
    "BUCKET_DRAIN_S": "0.2", "BUCKET_LEASE_S": "2", "BUCKET_HEARTBEAT_S": "0.5", "BUCKET_HANDOFF_S": "0.5",
}  # fmt: skip


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    sealed = {"BUCKET_ENCRYPTION_KEYS": OLD, "BUCKET_ENCRYPT_PAYLOADS": "true"}
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS), **sealed, **QUICK_RESTARTS)


def test_a_rotation_while_runs_go_on_loses_nothing_and_the_old_key_may_go(stack: Stack, tmp_path: Path) -> None:
    caller = ApiClient(stack)
    ended = [
        submit_rich(caller, times=LARGE),
        caller.submit_agent("keeper", person={"pin": PIN}),
        submit_rich(caller, fails=True),
    ]
    views = {each: caller.wait_done(each) for each in ended}
    assert [view["status"] for view in views.values()] == ["completed", "completed", "failed"]
    assert stack.mongo()["outputs"].count_documents({}) == 2, "a large output, and the large checkpoint that is kept"
    waiting = submit_waiting(caller)

    slept = tmp_path / "slept-once", tmp_path / "slept-twice"
    with step_gate(tmp_path / "gate"):
        under_way = submit_under_way(caller, slept, tmp_path / "gate")
        wait_until(slept[0].exists, 15, "the run is under way")
        restart(stack, f"{OLD},{NEW}")
        wait_until(slept[1].exists, 15, "the run goes on after the first restart")
        restart(stack, f"{NEW},{OLD}")
        wait_until(lambda: is_running(caller, under_way, "gate"), 15, "and after the second one")

        with traffic(caller) as meanwhile:
            kill_rotation_midway(stack)
            assert (is_stored(stack, OLD), is_stored(stack, NEW)) == (True, True), "it was killed in the middle"
            assert [caller.poll(each) for each in ended] == list(views.values())
            rotated = rotate(stack)
        assert rotated["resealed"] > 0
        assert {name: rotated[name] for name in ("key", "left", "unused_keys", "failures")} == {
            "key": key_id(NEW), "left": 0, "unused_keys": [key_id(OLD)], "failures": {},
        }  # fmt: skip
        assert not is_stored(stack, OLD)
    views[under_way] = caller.wait_done(under_way)
    views |= {each: caller.wait_done(each) for each in meanwhile}

    restart(stack, NEW)
    stack.redis().flushall()  # so that every poll comes from MongoDB
    assert {each: caller.poll(each) for each in views} == views
    assert caller.get(f"/executions/{ended[0]}/outputs/large").json() == {"text": WORDS * LARGE}
    assert views[under_way]["status"] == "completed", views[under_way]["error"]
    assert views[under_way]["outputs"]["last"]["is_clear"] is True, "it was given the marked output of its first step"
    assert meanwhile, "runs were accepted meanwhile"
    assert {views[each]["result"]["text"] for each in meanwhile} == {WORDS}
    retry = caller.wait_done(caller.post(f"/executions/{ended[2]}/retry", {}).json()["execution_id"])
    assert retry["error"]["message"] == "ValueError: nothing to do, again", "it has found its checkpoint"
    sealer = Sealer(parse_key_ring(NEW), seals_payloads=True)
    inputs = {each["_id"]: each["input"] for each in stack.mongo()["executions"].find({"_id": {"$in": waiting}})}
    assert {json.loads(sealer.open(inputs[each], input_place(each)))["text"] for each in waiting} == {WORDS}


def submit_rich(caller: ApiClient, *, times: int = 1, **last: Any) -> str:
    """Submit a run with outputs (one of them stored externally if it is large), checkpoints, log lines and a memory."""
    text = {"from": "input", "pointer": "/text"}
    steps = [
        {"id": "memory", "agent": "memo", "input": {"text": text}},
        {"id": "large", "agent": "repeater", "needs": ["memory"], "input": {"text": text, "times": times}},
        {"id": "last", "agent": "repeater", "needs": ["large"], "retry": "none",
         "input": {"text": text, "pad_bytes": 100_000, **last}},
    ]  # fmt: skip
    return submit(caller, {"config": {"name": "rich", "steps": steps}, "input_data": {"text": WORDS}})


def submit_under_way(caller: ApiClient, slept: tuple[Path, Path], gate: Path) -> str:
    """Submit a run that is under way at each restart, and then until ``gate`` opens."""
    steps = [
        {"id": "first", "agent": "keeper", "input": {"person": {"pin": {"from": "input", "pointer": "/pin"}}}},
        {"id": "once", "agent": "sleeper_once", "needs": ["first"], "input": {"path": str(slept[0]), "seconds": 120}},
        {"id": "twice", "agent": "sleeper_once", "needs": ["once"], "input": {"path": str(slept[1]), "seconds": 120}},
        {"id": "gate", "agent": "counter", "needs": ["twice"], "input": {"file": str(gate)}},
        {"id": "last", "agent": "keeper", "needs": ["gate", "first"],
         "input": {"person": {"pin": {"from": "first", "pointer": "/seen/codes/0/code"}}}},
    ]  # fmt: skip
    return submit(caller, {"config": {"name": "under way", "steps": steps}, "input_data": {"pin": PIN}})


def submit_waiting(caller: ApiClient) -> list[str]:
    item = {"config": {"agents": ["echo"]}, "input_data": {"text": WORDS}, "run_after_s": 3_600}
    accepted = caller.post("/run-basket/batch", {"items": [item] * WAITING}).json()["items"]
    return [each["execution_id"] for each in accepted]


def submit(caller: ApiClient, body: dict[str, Any]) -> str:
    response = caller.post("/run-basket", body)
    assert response.status_code == 202, response.text
    return str(response.json()["execution_id"])


def is_running(caller: ApiClient, execution_id: str, step: str) -> bool:
    return {each["step"]: each["status"] for each in caller.poll(execution_id)["steps"]}[step] == "running"


def restart(stack: Stack, keys: str) -> None:
    """Restart every process of Bucket with these keys, as docs/data.md asks; commands have them from now on too."""
    stack.environ["BUCKET_ENCRYPTION_KEYS"] = keys
    names = ("worker", "reconciler", "api")
    with ThreadPoolExecutor() as threads:
        list(threads.map(stack.stop, names))
    for name in names:  # not in threads: a process ends with the thread that started it
        stack.start(name, wait=name == "api", BUCKET_ENCRYPTION_KEYS=keys)


@contextmanager
def traffic(caller: ApiClient) -> Iterator[list[str]]:
    """Submit runs and poll them while the block runs; yield their ids, and fail if a request failed."""
    accepted: list[str] = []
    faults: list[BaseException] = []
    is_over = threading.Event()

    def go_on() -> None:
        try:
            while not is_over.wait(0.1):
                response = caller.post("/run-agent", {"agent_name": "echo", "input_data": {"text": WORDS}})
                if response.status_code == 503:
                    continue  # a busy machine
                assert response.status_code == 202, response.text
                accepted.append(response.json()["execution_id"])
                caller.poll(accepted[0])
        except BaseException as fault:  # noqa: BLE001 - raised again in the test
            faults.append(fault)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        wait_until(lambda: accepted or faults, 10, "the first run is accepted")
        yield accepted
    finally:
        is_over.set()
        thread.join()
    assert not faults, faults


def rotation_of(stack: Stack, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from compose.cli import main; main()", "keys", "rotate-data", *arguments]
    return subprocess.Popen(command, env=stack.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_rotation_midway(stack: Stack) -> None:
    """Start the rotation and kill it after its first batch."""
    with rotation_of(stack) as process:
        assert process.stdout is not None
        first_line = process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert (process.returncode, "runs sealed again" in first_line) == (-signal.SIGKILL, True), first_line


def rotate(stack: Stack) -> dict[str, Any]:
    """Rotate to the end and return what the command says; it is started again if a store was away, as it asks for."""
    for _ in range(3):
        with rotation_of(stack, "--json") as process:
            output, said = process.communicate(timeout=60)
        if process.returncode == 0 or not ("answer of the store was lost" in said or "does not answer" in said):
            break
    assert process.returncode == 0, said
    result: dict[str, Any] = json.loads(output)
    return result


def key_id(key: str) -> str:
    return key.partition(":")[0]


def is_stored(stack: Stack, key: str) -> bool:
    """Return whether a document of MongoDB or a value of Redis names the key."""
    return bool(places_with(stack, key_id(key)))
