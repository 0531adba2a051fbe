"""What agents rely on while they work: checkpoints, their memory, a queue of their own, and limits."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.client import AGENTS, ApiClient
from tests.stack import SecondProcess, Stack
from tests.waiting import is_running, wait_until

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture
def caller(stack: Stack) -> Iterator[ApiClient]:
    yield ApiClient(stack)
    stack.repair()


def ticks(file: Path) -> list[tuple[int, int, int]]:
    """Return the pieces that the ticker began: attempt, number, process id."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [tuple(map(int, line.split())) for line in lines]  # type: ignore[misc]


@pytest.mark.parametrize("pad", [0, 200_000])
def test_a_step_whose_process_is_killed_continues_at_its_checkpoint(
    caller: ApiClient, tmp_path: Path, pad: int
) -> None:
    file = tmp_path / "ticks"
    run = caller.submit_agent("ticker", path=str(file), pieces=12, slice_s=0.1, pad_bytes=pad)
    wait_until(lambda: len(ticks(file)) >= 6, 10, "it is halfway")
    process = ticks(file)[-1][2]
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not is_running(process), 5)
    last = ticks(file)[-1][1]

    view = caller.wait_done(run)
    assert view["status"] == "completed", view["error"]
    assert view["steps"][0]["attempts"] == 2
    first_of_second = next(number for attempt, number, _ in ticks(file) if attempt == 2)
    assert first_of_second in {last, last + 1}, "the interrupted piece again, and none before it"
    assert view["result"] == {"done": 12, "resumed_at": first_of_second}
    assert sorted({number for _, number, _ in ticks(file)}) == list(range(12))
    stored = caller.stack.mongo().executions.find_one({"_id": run})
    assert stored is not None
    assert not stored.get("checkpoints")
    large = caller.stack.mongo().outputs
    wait_until(lambda: large.count_documents({"execution_id": run}) == 0, 5, "no checkpoint is left behind")


def test_checkpoints_do_not_change_the_revision(caller: ApiClient, tmp_path: Path) -> None:
    run = caller.submit_agent("ticker", path=str(tmp_path / "ticks"), pieces=10, slice_s=0.05)
    view = caller.wait_done(run)
    assert view["rev"] <= 4, "accepted, started, done, and no more"


def state_of(caller: ApiClient, run: str) -> Any:
    view = caller.wait_done(run)
    assert view["status"] == "completed", view["error"]
    return view["outputs"]["memo"]["previous_state"]


def test_an_agent_gets_its_last_output_in_the_same_basket_only(caller: ApiClient) -> None:
    first_basket, second_basket = (f"memory {uuid.uuid4().hex[:8]}" for _ in range(2))
    for name in (first_basket, second_basket):
        assert caller.post("/create-basket", {"name": name, "agents": ["memo"]}).status_code == 201
    assert state_of(caller, caller.submit_basket(first_basket)) is None
    assert state_of(caller, caller.submit_basket(first_basket)) == {"previous_state": None}
    assert state_of(caller, caller.submit_basket(second_basket)) is None
    assert state_of(caller, caller.submit_basket(first_basket)) == {"previous_state": {"previous_state": None}}


def test_a_run_of_a_single_agent_gets_its_state_only_on_request(caller: ApiClient) -> None:
    def run(**fields: Any) -> Any:
        response = caller.post("/run-agent", {"agent_name": "memo", "input_data": {}} | fields)
        return state_of(caller, response.json()["execution_id"])

    assert run() is None
    assert run() is None, "it did not request its state"
    assert run(stateful=True) == {"previous_state": None}
    assert run(stateful=False) is None


def test_an_agent_without_memory_access_has_none(caller: ApiClient) -> None:
    caller.wait_done(caller.submit_agent("echo", a=1))
    assert caller.stack.mongo().agent_memory.count_documents({"_id": {"$regex": ":echo$"}}) == 0


@contextmanager
def pool(stack: Stack, queue: str) -> Iterator[SecondProcess]:
    """Start a worker with one process for one queue, as a Procfile may do."""
    plan = stack.plan("worker", BUCKET_WORKER_CONCURRENCY="1")
    worker = SecondProcess(replace(plan, argv=(*plan.argv, "-Q", queue)), stack.root, stack.group_reaper)
    worker.start(lambda: stack.has_presence(worker.pid))
    try:
        yield worker
    finally:
        worker.kill()


def test_a_busy_pool_of_slow_agents_does_not_delay_a_quick_basket(caller: ApiClient) -> None:
    caller.stack.stop("worker")
    with pool(caller.stack, "default"), pool(caller.stack, "long"):
        slow = [caller.submit_agent("sleeper_long", seconds=2) for _ in range(2)]
        wait_until(lambda: caller.poll(slow[0])["status"] == "running")
        quick = [caller.submit_agent("echo", n=number) for number in range(5)]
        assert {caller.wait_done(run)["status"] for run in quick} == {"completed"}
        assert caller.poll(slow[1])["status"] == "queued", "its pool is busy with the first"
        assert caller.poll(slow[0])["status"] == "running"
        assert {caller.wait_done(run)["status"] for run in slow} == {"completed"}


def test_a_chain_that_crosses_queues_continues_in_the_other_pool(caller: ApiClient) -> None:
    caller.stack.stop("worker")
    with pool(caller.stack, "default"), pool(caller.stack, "long"):
        config = {"agents": ["echo", "sleeper_long", "echo"]}
        response = caller.post("/run-basket", {"config": config, "input_data": {"seconds": 0.1}})
        view = caller.wait_done(response.json()["execution_id"])
    assert view["status"] == "completed"
    assert {step["attempts"] for step in view["steps"]} == {1}


def test_the_outputs_of_a_run_may_have_32_mib_together_and_no_more(caller: ApiClient) -> None:
    nearly = {"bytes": 4 * MIB - 100}
    steps = [
        {"id": f"b{n}", "agent": "big", "needs": [f"b{n - 1}"] if n else [], "input": nearly} for n in range(9)
    ]  # fmt: skip
    response = caller.post("/run-basket", {"config": {"steps": steps}})
    view = caller.wait_done(response.json()["execution_id"])
    assert (view["status"], view["error"]["error_code"], view["error"]["step"]) == (
        "failed", "output_too_large", "b8",
    )  # fmt: skip
    assert [step["status"] for step in view["steps"]] == ["completed"] * 8 + ["failed"]
    whole = caller.get(f"/executions/{view['execution_id']}/outputs/b7")
    assert (whole.status_code, len(whole.json()["text"])) == (200, 4 * MIB - 100)


def test_a_log_line_over_4_kib_is_cut_and_says_so(caller: ApiClient) -> None:
    view = caller.wait_done(caller.submit_agent("chatty", lines=1, bytes=10_000))
    (line,) = (line for line in view["logs"] if line["event"] == "agent.log")
    assert len(line["message"].encode()) <= 4096
    assert line["message"].startswith("line 1...")
    assert line["message"].endswith("(cut from 10000 bytes)")
