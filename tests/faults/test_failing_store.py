"""A store that fails now and then, before or after a write: many concurrent runs are still recorded once each."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from shared.domain.execution import Execution
from shared.domain.status import ExecutionStatus
from shared.errors import OutcomeUnknown, Unavailable
from tests.integration.worker.conftest import WorkerHarness, bench
from worker.steps.runner import Runner

__all__ = ["bench"]  # a fixture

RUNS = 60
WORKERS = 4
CHANCE = 0.25
WRITES = frozenset({"save", "renew", "report"})
SEED = 20261121


class Flaky:
    """Makes calls of a store fail at random, with a seed so that it can be repeated."""

    def __init__(self, store: Any, fault: str) -> None:
        self._store = store
        self._fault = fault
        self._chance = random.Random(SEED)
        self._lock = threading.Lock()
        self.faults = 0

    def __getattr__(self, verb: str) -> Any:
        real = getattr(self._store, verb)
        if verb not in WRITES | {"load", "read"}:
            return real

        def call(*args: Any, **options: Any) -> Any:
            with self._lock:
                fails = self._chance.random() < CHANCE
                self.faults += fails
            if fails and (self._fault == "before" or verb not in WRITES):
                raise Unavailable("a test has taken the store away")
            response = real(*args, **options)
            if fails:
                raise OutcomeUnknown
            return response

        return call


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_short_chaos_on_a_failing_store_records_each_step_once(bench: WorkerHarness, fault: str) -> None:
    runs = [bench.accept("echo", "counter", "echo", given={"n": number}) for number in range(RUNS)]
    flaky = Flaky(bench.services.store, fault)
    object.__setattr__(bench.services, "store", flaky)
    waiting = [run for run in runs for _ in range(2)]  # each message is sent twice
    random.Random(SEED).shuffle(waiting)
    lock = threading.Lock()

    def next_run() -> Execution | None:
        with lock:
            return waiting.pop() if waiting else None

    def work(runner: Runner) -> None:
        while (run := next_run()) is not None:
            runner.run_message(bench.message_of(run))

    threads = [threading.Thread(target=work, args=(bench.runner(),)) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert not any(thread.is_alive() for thread in threads)
    object.__setattr__(bench.services, "store", bench.store)
    assert flaky.faults > RUNS / 4
    for run in runs:
        record = bench.read(run)
        completed = [event.step for event in record.events if event.event == "step.completed"]
        assert record.execution.status is ExecutionStatus.COMPLETED
        assert completed == ["s1", "s2", "s3"]
        assert {step.claims for step in record.execution.steps.values()} == {1}
