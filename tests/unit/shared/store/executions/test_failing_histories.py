"""Random histories through a store that fails before its writes and after them: what was acknowledged is what stands.

Workers act on copies as old as they like, each save fails as often as drawn, and the answer to one that was written is
lost; whoever was told that its outcome is recorded must find that very outcome, once, and nobody else's.
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
from tests.builders import HandClock, blank
from tests.faulty_store import FaultyStore
from tests.in_memory_store import InMemoryExecutionStore

NAMES = ("a", "b", "c", "d")
FAULTS = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1))


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Repeat at once: what is tried here is the order of things, not their pace."""
    monkeypatch.setattr(settling, "_BACKOFF_S", 0.0)
    stamina.set_testing(True, attempts=20)
    yield
    stamina.set_testing(False)


class FailingHistory(RuleBasedStateMachine):
    """One run of a random graph in a store that fails as drawn; each rule may act on any copy that was ever seen."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.terms = Timings(losses_max=3)
        self.memory = InMemoryExecutionStore(self.clock)
        self.store = FaultyStore(self.memory)
        self.tokens = count()
        self.copies: list[Execution] = []
        self.leases: list[Lease] = []
        self.recorded: dict[str, bytes] = {}
        self.ended: ExecutionRecord | None = None

    @initialize(needs=st.lists(st.integers(0, 15), min_size=1, max_size=4))
    def begin(self, needs: list[int]) -> None:
        run = blank(*NAMES[: len(needs)])
        steps = tuple(
            replace(step, needs=tuple(name for bit, name in enumerate(NAMES[:place]) if needs[place] >> bit & 1))
            for place, step in enumerate(run.basket.steps)
        )
        accepted = start(replace(run, basket=replace(run.basket, steps=steps)), self.clock.now(), self.terms)
        self.copies.append(self.memory.create(accepted))

    @rule(seconds=st.integers(0, 70))
    def time_passes(self, seconds: int) -> None:
        self.clock.forward(seconds)

    @rule(data=st.data(), step=st.sampled_from(NAMES), faults=FAULTS)
    def a_bell_rings(self, data: st.DataObject, step: str, faults: tuple[int, int, int]) -> None:
        token = f"t{next(self.tokens)}"
        settled = self._settle(
            data.draw(st.sampled_from(self.copies)),
            lambda seen: claim(seen, step, token, self.clock.now(), self.terms),
            faults,
            is_mine=lambda seen: seen.steps[step].token == token,
        )
        if settled is not None and settled.record.execution.steps[step].status is StepStatus.RUNNING:
            self.leases.append(settled.record.execution.lease_of(step))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), faults=FAULTS, goes_on=st.booleans())
    def a_worker_completes(self, data: st.DataObject, faults: tuple[int, int, int], goes_on: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        output = orjson.dumps({"by": lease.token, "try": next(self.tokens)})
        token = f"t{next(self.tokens)}" if goes_on else None

        def decide(seen: Execution) -> Decision:
            output_of = StepOutput(lease.step, output)
            return complete(seen, lease, output_of, self.clock.now(), self.terms, next_token=token)

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
        self._settle_by_lease(data, lease, lambda seen: fail(seen, lease, error, self.clock.now(), jitter=0.5), faults)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), faults=FAULTS)
    def a_worker_hands_back(self, data: st.DataObject, faults: tuple[int, int, int]) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self._settle_by_lease(
            data, lease, lambda seen: release(seen, lease, self.clock.now(), self.terms, "drains"), faults
        )

    @rule(data=st.data(), faults=FAULTS)
    def somebody_cancels(self, data: st.DataObject, faults: tuple[int, int, int]) -> None:
        copy = data.draw(st.sampled_from(self.copies))
        self._settle(copy, lambda seen: cancel(seen, self.clock.now(), "enough"), faults)

    @rule(data=st.data(), step=st.sampled_from(NAMES), faults=FAULTS)
    def the_reconciler_looks(self, data: st.DataObject, step: str, faults: tuple[int, int, int]) -> None:
        copy = data.draw(st.sampled_from(self.copies))
        self._settle(copy, lambda seen: expire(seen, self.clock.now()), faults)
        self._settle(copy, lambda seen: rescue(seen, step, self.clock.now(), self.terms), faults)

    @invariant()
    def what_was_acknowledged_is_what_stands(self) -> None:
        if not self.copies:
            return
        stands = self._stands()
        completed = {step.id for step in stands.execution.steps.values() if step.status is StepStatus.COMPLETED}
        assert completed == set(self.recorded)
        assert {step: stands.outputs[step] for step in completed} == self.recorded

    @invariant()
    def what_is_over_stays_as_it_ended(self) -> None:
        if not self.copies:
            return
        stands = self._stands()
        if self.ended is not None:
            assert stands == self.ended
        elif stands.execution.is_done:
            self.ended = stands

    @invariant()
    def neither_version_nor_revision_goes_back(self) -> None:
        if self.copies:
            stands, last = self._stands().execution, self.copies[-1]
            assert (stands.version, stands.rev) >= (last.version, last.rev)
            if stands != last:
                self.copies.append(stands)

    def _stands(self) -> ExecutionRecord:
        found = self.memory.read(self.copies[0].integrator, self.copies[0].id)
        assert found is not None
        return found

    def _settle_by_lease(
        self, data: st.DataObject, lease: Lease, decide: Callable[[Execution], Decision], faults: tuple[int, int, int]
    ) -> SettleResult | None:
        """Settle as a worker does that holds ``lease``, which decides once; None where it does not hold it any more."""
        self.leases.remove(lease)
        # A worker's copy is at least as new as its claim.
        since = [copy for copy in self.copies if copy.steps[lease.step].claims >= lease.claim]
        copy = data.draw(st.sampled_from(since or [self._stands().execution]))

        def moved_on(seen: Execution) -> bool:
            return seen.steps[lease.step].matches_lease(lease) and not seen.steps[lease.step].is_running_under(lease)

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
