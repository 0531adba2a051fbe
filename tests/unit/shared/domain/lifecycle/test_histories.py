"""Random histories: steps are claimed, completed, failed, lost or doubled at any time; a run still ends once."""

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
from tests.builders import NOON, unstarted_run

NAMES = ("a", "b", "c", "d", "e")


class History(RuleBasedStateMachine):
    """One run of a random graph; the rules are events in any order, with old and new leases."""

    execution: Execution

    def __init__(self) -> None:
        super().__init__()
        self.now: datetime = NOON
        self.timings = Timings()
        self.tokens = count()
        self.leases: list[Lease] = []
        self.recorded: dict[str, int] = {}
        self.ended: Execution | None = None
        self.events: list[LogEvent] = []

    @initialize(
        needs=st.lists(st.integers(0, 31), min_size=1, max_size=5),
        losses_max=st.integers(1, 3),
        moments=st.tuples(*[st.none() | st.integers(1, 600)] * 3),
    )
    def begin(self, needs: list[int], losses_max: int, moments: tuple[int | None, int | None, int | None]) -> None:
        self.timings = Timings(losses_max=losses_max)
        run_after, start_deadline, deadline = (
            None if seconds is None else NOON + timedelta(seconds=seconds) for seconds in moments
        )
        run = unstarted_run(*NAMES[: len(needs)], run_after=run_after, start_deadline=start_deadline, deadline=deadline)
        # Bit i of a step's number: it needs step i, if that one is before it.
        steps = tuple(
            replace(step, needs=tuple(name for bit, name in enumerate(NAMES[:place]) if needs[place] >> bit & 1))
            for place, step in enumerate(run.basket.steps)
        )
        decision = start(replace(run, basket=replace(run.basket, steps=steps)), self.now, self.timings)
        self.execution = decision.execution

    @rule(seconds=st.integers(0, 70))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(step=st.sampled_from([*NAMES, "nowhere"]))
    def a_task_message_arrives(self, step: str) -> None:
        self._take(claim(self.execution, step, f"t{next(self.tokens)}", self.now, self.timings))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), goes_on=st.booleans())
    def a_worker_completes(self, data: st.DataObject, goes_on: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        token = f"t{next(self.tokens)}" if goes_on else None
        output = StepOutput(lease.step, b"{}")
        held = self.execution.steps[lease.step].is_running_under(lease)
        try:
            decision = complete(self.execution, lease, output, self.now, self.timings, next_token=token)
        except LeaseLost:
            assert not held
            return
        assert held
        self.recorded[lease.step] = self.recorded.get(lease.step, 0) + 1
        self._take(decision)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), kind=st.sampled_from(ErrorKind), chance=st.floats(0, 1))
    def an_agent_fails(self, data: st.DataObject, kind: ErrorKind, chance: float) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        try:
            decision = fail(self.execution, lease, RunError("agent_error", "no", kind), self.now, jitter=chance)
        except LeaseLost:
            assert not self.execution.steps[lease.step].is_running_under(lease)
            return
        self._take(decision)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), agent_is_unknown=st.booleans())
    def a_worker_hands_back(self, data: st.DataObject, agent_is_unknown: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        try:
            if agent_is_unknown:
                self._take(release_unknown_agent(self.execution, lease, self.now))
            else:
                self._take(release(self.execution, lease, self.now, self.timings, "drains"))
        except LeaseLost:
            assert not self.execution.steps[lease.step].is_running_under(lease)

    @rule()
    def a_caller_cancels(self) -> None:
        self._take(cancel(self.execution, self.now, "enough"))

    @rule()
    def a_deadline_is_checked(self) -> None:
        self._take(expire(self.execution, self.now))

    @rule(step=st.sampled_from([*NAMES, "nowhere"]))
    def the_reconciler_checks(self, step: str) -> None:
        self._take(rescue(self.execution, step, self.now, self.timings))

    @invariant()
    def each_run_that_is_not_final_is_checked_again(self) -> None:
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
        """Let the reconciler and one good worker continue: the run must end."""
        if not hasattr(self, "execution"):
            return
        for _ in range(100):
            if self.execution.is_done:
                return
            self.now += timedelta(minutes=2)
            self._take(expire(self.execution, self.now))
            for step in list(self.execution.steps):
                self._take(rescue(self.execution, step, self.now, self.timings))
                self._take(claim(self.execution, step, f"t{next(self.tokens)}", self.now, self.timings))
                if self.execution.steps[step].status is StepStatus.RUNNING:
                    lease = self.execution.lease_of(step)
                    self._take(complete(self.execution, lease, StepOutput(step, b"{}"), self.now, self.timings))
        raise AssertionError(f"the run never ends: {self.execution}")

    def _take(self, decision: Decision | None) -> None:
        if decision is None:
            return
        assert self.ended is None, "something happened to a final run"
        before, after = self.execution, decision.execution
        assert after.status is before.status or after.status in EXECUTION_TRANSITIONS[before.status]
        for step in after.steps.values():
            old_status = before.steps[step.id].status
            inline = old_status is StepStatus.WAITING and step.status is StepStatus.RUNNING
            assert step.status is old_status or step.status in STEP_TRANSITIONS[old_status] or inline
            assert step.claims >= before.steps[step.id].claims
            if step.status is StepStatus.RUNNING:
                self.leases.append(after.lease_of(step.id))
        for step_id in decision.dispatch:
            assert after.steps[step_id].status is StepStatus.READY
            assert after.steps[step_id].offered_at == self.now
        self.execution = after
        if after.is_done:
            self.ended = after


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
