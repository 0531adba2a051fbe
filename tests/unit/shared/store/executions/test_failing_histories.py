"""Random histories in a store that fails before and after its writes: what was acknowledged is what is stored.

Workers act on copies of any age, each save fails a random number of times, and the reply to a save that was written may
be lost. A worker that got the acknowledgement of its outcome must find this outcome stored, once, and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import orjson
import pytest
import stamina
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.domain.execution import ErrorKind, Execution, ExecutionRecord, Lease, RunError
from shared.domain.lifecycle.decision import Decision, StepOutput
from shared.domain.lifecycle.timings import Timings
from shared.domain.lifecycle.transitions import cancel, claim, complete, expire, fail, release, rescue, start
from shared.domain.status import StepStatus
from shared.errors import LeaseLost
from shared.store.executions import settle as settling
from shared.store.executions.settle import SettleResult, settle
from tests.builders import ManualClock, unstarted_run
from tests.faulty_store import FaultyStore
from tests.in_memory_store import InMemoryExecutionStore

NAMES = ("a", "b", "c", "d")
FAULTS = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1))


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retry without back-off: these tests check the order of events, not their time."""
    monkeypatch.setattr(settling, "_BACKOFF_S", 0.0)
    stamina.set_testing(True, attempts=20)
    yield
    stamina.set_testing(False)


class FailingHistory(RuleBasedStateMachine):
    """One run of a random graph in a store with random faults; each rule may act on any copy, new or old."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.timings = Timings(losses_max=3)
        self.memory = InMemoryExecutionStore(self.clock)
        self.store = FaultyStore(self.memory)
        self.tokens = count()
        self.copies: list[Execution] = []
        self.leases: list[Lease] = []
        self.recorded: dict[str, bytes] = {}
        self.ended: ExecutionRecord | None = None

    @initialize(needs=st.lists(st.integers(0, 15), min_size=1, max_size=4))
    def begin(self, needs: list[int]) -> None:
        run = unstarted_run(*NAMES[: len(needs)])
        steps = tuple(
            replace(step, needs=tuple(name for bit, name in enumerate(NAMES[:place]) if needs[place] >> bit & 1))
            for place, step in enumerate(run.basket.steps)
        )
        accepted = start(replace(run, basket=replace(run.basket, steps=steps)), self.clock.now(), self.timings)
        self.copies.append(self.memory.create(accepted))

    @rule(seconds=st.integers(0, 70))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(data=st.data(), step=st.sampled_from(NAMES), faults=FAULTS)
    def a_task_message_arrives(self, data: st.DataObject, step: str, faults: tuple[int, int, int]) -> None:
        token = f"t{next(self.tokens)}"
        settled = self._settle(
            data.draw(st.sampled_from(self.copies)),
            lambda current: claim(current, step, token, self.clock.now(), self.timings),
            faults,
            is_mine=lambda current: current.steps[step].token == token,
        )
        if settled is not None and settled.record.execution.steps[step].status is StepStatus.RUNNING:
            self.leases.append(settled.record.execution.lease_of(step))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), faults=FAULTS, goes_on=st.booleans())
    def a_worker_completes(self, data: st.DataObject, faults: tuple[int, int, int], goes_on: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        output = orjson.dumps({"by": lease.token, "try": next(self.tokens)})
        token = f"t{next(self.tokens)}" if goes_on else None

        def decide(current: Execution) -> Decision:
            output_of = StepOutput(lease.step, output)
            return complete(current, lease, output_of, self.clock.now(), self.timings, next_token=token)

        settled = self._settle_by_lease(data, lease, decide, faults)
        if settled is None:
            return
        assert lease.step not in self.recorded, "two outcomes of one step were acknowledged"
        self.recorded[lease.step] = output
        following = settled.decision.next_step
        if following is not None and settled.record.execution.steps[following].token == token:
            self.leases.append(settled.record.execution.lease_of(following))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), kind=st.sampled_from([ErrorKind.TRANSIENT, ErrorKind.PERMANENT]), faults=FAULTS)
    def an_agent_fails(self, data: st.DataObject, kind: ErrorKind, faults: tuple[int, int, int]) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        error = RunError("agent_error", "no", kind)
        self._settle_by_lease(
            data, lease, lambda current: fail(current, lease, error, self.clock.now(), jitter=0.5), faults
        )

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), faults=FAULTS)
    def a_worker_hands_back(self, data: st.DataObject, faults: tuple[int, int, int]) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self._settle_by_lease(
            data, lease, lambda current: release(current, lease, self.clock.now(), self.timings, "drains"), faults
        )

    @rule(data=st.data(), faults=FAULTS)
    def a_caller_cancels(self, data: st.DataObject, faults: tuple[int, int, int]) -> None:
        copy = data.draw(st.sampled_from(self.copies))
        self._settle(copy, lambda current: cancel(current, self.clock.now(), "enough"), faults)

    @rule(data=st.data(), step=st.sampled_from(NAMES), faults=FAULTS)
    def the_reconciler_checks(self, data: st.DataObject, step: str, faults: tuple[int, int, int]) -> None:
        copy = data.draw(st.sampled_from(self.copies))
        self._settle(copy, lambda current: expire(current, self.clock.now()), faults)
        self._settle(copy, lambda current: rescue(current, step, self.clock.now(), self.timings), faults)

    @invariant()
    def what_was_acknowledged_is_what_is_stored(self) -> None:
        if not self.copies:
            return
        stored = self._stands()
        completed = {step.id for step in stored.execution.steps.values() if step.status is StepStatus.COMPLETED}
        assert completed == set(self.recorded)
        assert {step: stored.outputs[step] for step in completed} == self.recorded

    @invariant()
    def what_is_over_stays_as_it_ended(self) -> None:
        if not self.copies:
            return
        stored = self._stands()
        if self.ended is not None:
            assert stored == self.ended
        elif stored.execution.is_done:
            self.ended = stored

    @invariant()
    def neither_version_nor_revision_goes_back(self) -> None:
        if self.copies:
            stored, last = self._stands().execution, self.copies[-1]
            assert (stored.version, stored.rev) >= (last.version, last.rev)
            if stored != last:
                self.copies.append(stored)

    def _stands(self) -> ExecutionRecord:
        record = self.memory.read(self.copies[0].integrator, self.copies[0].id)
        assert record is not None
        return record

    def _settle_by_lease(
        self, data: st.DataObject, lease: Lease, decide: Callable[[Execution], Decision], faults: tuple[int, int, int]
    ) -> SettleResult | None:
        """Settle once as a worker that holds ``lease``; return None if it does not hold the lease any more."""
        self.leases.remove(lease)
        # A worker's copy is at least as new as its claim.
        since = [copy for copy in self.copies if copy.steps[lease.step].claims >= lease.claim]
        copy = data.draw(st.sampled_from(since or [self._stands().execution]))

        def moved_on(current: Execution) -> bool:
            return current.steps[lease.step].matches_lease(lease) and not current.steps[lease.step].is_running_under(
                lease
            )

        try:
            return self._settle(copy, decide, faults, lease=lease, is_mine=moved_on)
        except LeaseLost:
            return None

    def _settle(
        self,
        copy: Execution,
        decide: Callable[[Execution], Decision | None],
        faults: tuple[int, int, int],
        *,
        lease: Lease | None = None,
        is_mine: Callable[[Execution], bool] = lambda _: False,
    ) -> SettleResult | None:
        before, after, load = faults
        self.store = FaultyStore(self.memory)
        self.store.fail("save", before=before, after=after)
        self.store.fail("load", before=load)
        return settle(self.store, copy, decide, lease=lease, is_own_write=is_mine)


TestFailingHistory = FailingHistory.TestCase
TestFailingHistory.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
