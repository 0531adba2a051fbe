"""Random histories: whatever is claimed, completed, failed, lost or doubled and whenever, a run ends once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.domain.execution import ErrorKind, Execution, Lease, LogEvent, RunError
from shared.domain.lifecycle.decision import Decision, StepOutput
from shared.domain.lifecycle.timings import Timings
from shared.domain.lifecycle.transitions import (
    cancel,
    claim,
    complete,
    expire,
    fail,
    release,
    release_unknown_agent,
    rescue,
    start,
)
from shared.domain.status import EXECUTION_TRANSITIONS, STEP_TRANSITIONS, StepStatus
from shared.errors import LeaseLost
from tests.builders import NOON, blank

NAMES = ("a", "b", "c", "d", "e")


class History(RuleBasedStateMachine):
    """One run of a random graph; rules are what can happen to it, in any order, with leases old and new."""

    execution: Execution

    def __init__(self) -> None:
        super().__init__()
        self.now: datetime = NOON
        self.terms = Timings()
        self.tokens = count()
        self.leases: list[Lease] = []
        self.recorded: dict[str, int] = {}
        self.ended: Execution | None = None
        self.told: list[LogEvent] = []

    @initialize(
        needs=st.lists(st.integers(0, 31), min_size=1, max_size=5),
        losses_max=st.integers(1, 3),
        moments=st.tuples(*[st.none() | st.integers(1, 600)] * 3),
    )
    def begin(self, needs: list[int], losses_max: int, moments: tuple[int | None, int | None, int | None]) -> None:
        self.terms = Timings(losses_max=losses_max)
        run_after, start_deadline, deadline = (
            None if seconds is None else NOON + timedelta(seconds=seconds) for seconds in moments
        )
        run = blank(*NAMES[: len(needs)], run_after=run_after, start_deadline=start_deadline, deadline=deadline)
        # Bit i of a step's number: it needs step i, where that one stands before it.
        steps = tuple(
            replace(step, needs=tuple(name for bit, name in enumerate(NAMES[:place]) if needs[place] >> bit & 1))
            for place, step in enumerate(run.basket.steps)
        )
        advance = start(replace(run, basket=replace(run.basket, steps=steps)), self.now, self.terms)
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
        output = StepOutput(lease.step, b"{}")
        held = self.execution.steps[lease.step].is_running_under(lease)
        try:
            advance = complete(self.execution, lease, output, self.now, self.terms, next_token=token)
        except LeaseLost:
            assert not held
            return
        assert held
        self.recorded[lease.step] = self.recorded.get(lease.step, 0) + 1
        self._take(advance)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), kind=st.sampled_from(ErrorKind), chance=st.floats(0, 1))
    def an_agent_fails(self, data: st.DataObject, kind: ErrorKind, chance: float) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        try:
            advance = fail(self.execution, lease, RunError("agent_error", "no", kind), self.now, jitter=chance)
        except LeaseLost:
            assert not self.execution.steps[lease.step].is_running_under(lease)
            return
        self._take(advance)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), strange=st.booleans())
    def a_worker_hands_back(self, data: st.DataObject, strange: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        try:
            if strange:
                self._take(release_unknown_agent(self.execution, lease, self.now))
            else:
                self._take(release(self.execution, lease, self.now, self.terms, "drains"))
        except LeaseLost:
            assert not self.execution.steps[lease.step].is_running_under(lease)

    @rule()
    def somebody_cancels(self) -> None:
        self._take(cancel(self.execution, self.now, "enough"))

    @rule()
    def a_deadline_is_looked_at(self) -> None:
        self._take(expire(self.execution, self.now))

    @rule(step=st.sampled_from([*NAMES, "nowhere"]))
    def the_reconciler_looks(self, step: str) -> None:
        self._take(rescue(self.execution, step, self.now, self.terms))

    @invariant()
    def each_run_that_is_not_final_is_looked_at_again(self) -> None:
        if hasattr(self, "execution"):
            assert (self.execution.due_by is None) == self.execution.is_done

    @invariant()
    def no_step_is_recorded_twice(self) -> None:
        assert all(times == 1 for times in self.recorded.values())

    @invariant()
    def what_is_over_stays_as_it_ended(self) -> None:
        if self.ended is not None:
            assert self.execution == self.ended

    @invariant()
    def a_final_run_has_no_step_left(self) -> None:
        if hasattr(self, "execution") and self.execution.is_done:
            assert all(step.status.is_final for step in self.execution.steps.values())
            completed = all(step.status is StepStatus.COMPLETED for step in self.execution.steps.values())
            assert (self.execution.status == "completed") == completed
            assert (self.execution.error is None) == completed
            assert (self.execution.status == "cancelled") == (self.execution.cancel is not None and not completed)

    def teardown(self) -> None:
        """Let the reconciler and one good worker go on: the run must come to its end."""
        if not hasattr(self, "execution"):
            return
        for _ in range(100):
            if self.execution.is_done:
                return
            self.now += timedelta(minutes=2)
            self._take(expire(self.execution, self.now))
            for step in list(self.execution.steps):
                self._take(rescue(self.execution, step, self.now, self.terms))
                self._take(claim(self.execution, step, f"t{next(self.tokens)}", self.now, self.terms))
                if self.execution.steps[step].status is StepStatus.RUNNING:
                    lease = self.execution.lease_of(step)
                    self._take(complete(self.execution, lease, StepOutput(step, b"{}"), self.now, self.terms))
        raise AssertionError(f"the run never ends: {self.execution}")

    def _take(self, advance: Decision | None) -> None:
        if advance is None:
            return
        assert self.ended is None, "something happened to a final run"
        before, after = self.execution, advance.execution
        assert after.status is before.status or after.status in EXECUTION_TRANSITIONS[before.status]
        for step in after.steps.values():
            was = before.steps[step.id].status
            inline = was is StepStatus.WAITING and step.status is StepStatus.RUNNING
            assert step.status is was or step.status in STEP_TRANSITIONS[was] or inline
            assert step.claims >= before.steps[step.id].claims
            if step.status is StepStatus.RUNNING:
                self.leases.append(after.lease_of(step.id))
        for handed in advance.dispatch:
            assert after.steps[handed].status is StepStatus.READY
            assert after.steps[handed].offered_at == self.now
        self.execution = after
        if after.is_done:
            self.ended = after


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
