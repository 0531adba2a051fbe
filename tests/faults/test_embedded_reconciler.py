"""The reconciler as a child of a worker: it comes back after its death, and it never outlives the worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.harness.cpu_time import children_of
from tests.api_client import AGENTS, RunClient
from tests.stack import SecondProcess, Stack
from tests.waiting import is_running, wait_until

BEGINS = "the reconciler begins to search"


class WorkerWithReconciler(SecondProcess):
    """A worker that embeds the only reconciler of its stack."""

    def __init__(self, stack: Stack) -> None:
        plan = stack.plan("worker")
        super().__init__(replace(plan, argv=(*plan.argv, "--reconciler")), stack.root, stack.group_reaper)

    @property
    def main(self) -> int:
        """The id of the worker's main process."""
        assert self.pid is not None
        return self.pid

    @property
    def reconciler(self) -> int:
        """The id of the reconciler: the child that takes SIGTERM from a thread, as it is blocked everywhere else."""
        wait_until(lambda: len(self._reconcilers()) == 1, what="there is one reconciler")
        return self._reconcilers()[0]

    def _reconcilers(self) -> list[int]:
        return [child for child in children_of(self.main) if _blocks(child, signal.SIGTERM)]


def _blocks(pid: int, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return bool(int(status.partition("SigBlk:\t")[2].split("\n")[0], 16) & 1 << number - 1)


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack(BUCKET_AGENTS_DIR=str(AGENTS))
    stack.stop("worker")
    stack.stop("reconciler")
    return stack


@pytest.fixture
def worker(stack: Stack) -> Iterator[WorkerWithReconciler]:
    embedding = WorkerWithReconciler(stack)
    try:
        embedding.start(lambda: stack.has_presence(embedding.pid) and BEGINS in embedding.output())
        yield embedding
    finally:
        embedding.kill()


def test_a_killed_reconciler_comes_back_and_reconciles(
    worker: WorkerWithReconciler, stack: Stack, tmp_path: Path
) -> None:
    runs = RunClient(stack, tmp_path / "counted")
    first = worker.reconciler
    time.sleep(3)  # three checks of the watchdog, which kills what two of them took for an orphan
    assert worker.reconciler == first
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: worker.output().count(BEGINS) == 2, what="another begins")
    assert worker.reconciler != first
    scheduled = runs.submit(run_after_s=0.5).execution_id  # nobody but a reconciler starts it
    assert runs.wait_done(scheduled)["status"] == "completed"
    assert "the reconciler has ended: another is started" in worker.output()
    assert "an agent left behind" not in worker.output()


def test_a_reconciler_does_not_outlive_a_killed_worker(worker: WorkerWithReconciler) -> None:
    reconciler = worker.reconciler
    os.kill(worker.main, signal.SIGKILL)  # not its group
    wait_until(lambda: not is_running(reconciler), what="the reconciler has ended")


@pytest.mark.parametrize("to_group", [False, True])
def test_sigterm_stops_both_in_order(worker: WorkerWithReconciler, *, to_group: bool) -> None:
    main, family = worker.main, {worker.main, worker.reconciler, *children_of(worker.main)}
    (os.killpg if to_group else os.kill)(main, signal.SIGTERM)
    wait_until(lambda: not worker.is_alive(), 20, "the worker has ended")
    assert worker.exit_code == 0
    assert not any(map(is_running, family))
    assert worker.output().count(BEGINS) == 1
    assert "Traceback" not in worker.output()


def test_a_reconciler_that_does_not_stop_is_killed(worker: WorkerWithReconciler) -> None:
    reconciler = worker.reconciler
    os.kill(reconciler, signal.SIGSTOP)
    os.kill(worker.main, signal.SIGTERM)
    wait_until(lambda: not worker.is_alive(), 20, "the worker has ended")
    assert (worker.exit_code, is_running(reconciler)) == (0, False)
