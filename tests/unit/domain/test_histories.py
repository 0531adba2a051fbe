"""Random histories: whatever is claimed, completed, failed, lost or doubled and whenever, a run ends once."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.domain.execution import ErrorKind, Event, Execution, Lease, RunError
from shared.domain.life import Advance, Output, Terms, claim, complete, fail, rescue, start
from shared.domain.status import EXECUTION_MOVES, STEP_MOVES, StepStatus
from shared.errors import LeaseLost
from tests.builders import NOON, blank

NAMES = ("a", "b", "c", "d", "e")


class History(RuleBasedStateMachine):
    """One run of a chain; rules are what can happen to it, in any order, with leases old and new."""

    execution: Execution

    def __init__(self) -> None:
        super().__init__()
        self.now: datetime = NOON
        self.terms = Terms()
        self.tokens = count()
        self.leases: list[Lease] = []
        self.recorded: dict[str, int] = {}
        self.ended: Execution | None = None
        self.told: list[Event] = []

    @initialize(length=st.integers(1, 5), losses_max=st.integers(1, 3))
    def begin(self, length: int, losses_max: int) -> None:
        self.terms = Terms(losses_max=losses_max)
        advance = start(blank(*NAMES[:length]), self.now, self.terms)
        self.execution = advance.execution

    @rule(seconds=st.integers(0, 70))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(step=st.sampled_from([*NAMES, "nowhere"]))
    def a_bell_rings(self, step: str) -> None:
        self._take(claim(self.execution, step, f"t{next(self.tokens)}", self.now, self.terms))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), goes_on=st.booleans())
    def a_worker_completes(self, data: st.DataObject, goes_on: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        token = f"t{next(self.tokens)}" if goes_on else None
        output = Output(lease.step, b"{}")
        held = self.execution.steps[lease.step].holds(lease)
        try:
            advance = complete(self.execution, lease, output, self.now, self.terms, next_token=token)
        except LeaseLost:
            assert not held
            return
        assert held
        self.recorded[lease.step] = self.recorded.get(lease.step, 0) + 1
        self._take(advance)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def an_agent_fails(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        try:
            self._take(fail(self.execution, lease, RunError("agent_error", "no", ErrorKind.PERMANENT), self.now))
        except LeaseLost:
            assert not self.execution.steps[lease.step].holds(lease)

    @rule(step=st.sampled_from([*NAMES, "nowhere"]))
    def the_reconciler_looks(self, step: str) -> None:
        self._take(rescue(self.execution, step, self.now, self.terms))

    @invariant()
    def each_run_that_is_not_final_is_looked_at_again(self) -> None:
        if hasattr(self, "execution"):
            assert (self.execution.due_by is None) == self.execution.done

    @invariant()
    def no_step_is_recorded_twice(self) -> None:
        assert all(times == 1 for times in self.recorded.values())

    @invariant()
    def what_is_over_stays_as_it_ended(self) -> None:
        if self.ended is not None:
            assert self.execution == self.ended

    @invariant()
    def a_final_run_has_no_step_left(self) -> None:
        if hasattr(self, "execution") and self.execution.done:
            assert all(step.status.is_final for step in self.execution.steps.values())
            failed = [step for step in self.execution.steps.values() if step.status is StepStatus.FAILED]
            assert (self.execution.status == "failed") == bool(failed)

    def teardown(self) -> None:
        """Let the reconciler and one good worker go on: the run must come to its end."""
        if not hasattr(self, "execution"):
            return
        for _ in range(100):
            if self.execution.done:
                return
            self.now += timedelta(minutes=2)
            for step in list(self.execution.steps):
                self._take(rescue(self.execution, step, self.now, self.terms))
                self._take(claim(self.execution, step, f"t{next(self.tokens)}", self.now, self.terms))
                if self.execution.steps[step].status is StepStatus.RUNNING:
                    lease = self.execution.lease_of(step)
                    self._take(complete(self.execution, lease, Output(step, b"{}"), self.now, self.terms))
        raise AssertionError(f"the run never ends: {self.execution}")

    def _take(self, advance: Advance | None) -> None:
        if advance is None:
            return
        assert self.ended is None, "something happened to a final run"
        before, after = self.execution, advance.execution
        assert after.status is before.status or after.status in EXECUTION_MOVES[before.status]
        for step in after.steps.values():
            was = before.steps[step.id].status
            inline = was is StepStatus.WAITING and step.status is StepStatus.RUNNING
            assert step.status is was or step.status in STEP_MOVES[was] or inline
            assert step.claims >= before.steps[step.id].claims
            if step.status is StepStatus.RUNNING:
                self.leases.append(after.lease_of(step.id))
        for handed in advance.hand_out:
            assert after.steps[handed].status is StepStatus.READY
            assert after.steps[handed].offered_at == self.now
        self.execution = after
        if after.done:
            self.ended = after


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
