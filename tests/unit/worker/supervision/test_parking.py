"""A step interrupter without a step parks: it wakes in time, and its silence is not taken for a hang."""

from __future__ import annotations

import os
from typing import Any

import pytest

from shared.clock import boottime_s
from shared.domain.execution import Lease
from tests.waiting import wait_until
from worker.supervision.shared_slots import SharedSlots, SlotState
from worker.supervision.step_interrupter import StepInterrupter
from worker.supervision.watchdog import Watchdog

LEASE = Lease(integrator="public", execution_id="e", step="s1", claim=1, token="t")
LEASE_S = 5


class Watch(Watchdog):
    """A watchdog that records which children it would kill."""

    def __init__(self, slots: SharedSlots) -> None:
        ignored: Any = lambda *_: None  # noqa: E731
        super().__init__(slots, lease_s=LEASE_S, record_killed=ignored, backlog_size=lambda: 0, pool_pids=set)
        self.killed: list[int] = []

    def check_children(self) -> None:
        for child in self._slots.read_states():
            self._check_child(child, boottime_s())

    def _kill_child(self, child: SlotState, reason: str) -> None:
        del reason
        self.killed.append(child.pid)


@pytest.fixture
def slots() -> SharedSlots:
    return SharedSlots(1)


@pytest.fixture
def interrupter(slots: SharedSlots) -> StepInterrupter:
    """Return an interrupter that is parked."""
    interrupter = StepInterrupter(slots, slots.slot(0), grace_s=60, drain_s=60)
    interrupter.start(lambda *_: None)
    wait_until(lambda: interrupter._parking.is_parked, what="it parks")
    return interrupter


def test_a_parked_interrupter_wakes_for_a_step_of_a_fifth_of_a_second(interrupter: StepInterrupter) -> None:
    for _ in range(2):
        with interrupter.enforce_limits(LEASE, 0.2) as step:
            assert step.cancel.wait(10)
            assert step.stop_reason == "timeout"
        wait_until(lambda: interrupter._parking.is_parked, what="it parks again")


def test_a_step_that_begins_after_a_long_pause_is_not_killed(slots: SharedSlots, interrupter: StepInterrupter) -> None:
    watchdog = Watch(slots)
    for _ in range(LEASE_S * 3):
        watchdog.check_children()
    with interrupter.enforce_limits(LEASE, 60) as step, interrupter.interruptible(step):
        watchdog.check_children()
        assert not watchdog.killed


def test_a_step_in_which_no_thread_runs_is_still_killed(slots: SharedSlots) -> None:
    interrupter, watchdog = StepInterrupter(slots, slots.slot(0), grace_s=60, drain_s=60), Watch(slots)
    with interrupter.enforce_limits(LEASE, 60) as step, interrupter.interruptible(step):  # its thread does not run
        for _ in range(LEASE_S * 3):
            watchdog.check_children()
    assert os.getpid() in watchdog.killed


def test_a_step_that_begins_is_a_sign_of_life(slots: SharedSlots, interrupter: StepInterrupter) -> None:
    [before] = slots.read_states()
    with interrupter.enforce_limits(LEASE, 60):
        [during] = slots.read_states()
    assert before.alive_count < during.alive_count
