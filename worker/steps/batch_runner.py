"""Several bells at once, where a backlog waits and steps prove quick: one read, one claim and one end for them all.

    bells -> load all -> claim all -> run one after the other, as any bell is -> write all ends, tell of them all

Only fresh chains are claimed together: nothing has happened to such a run since it was accepted, so that all of it is
known after the write, and no step that has lost a worker can harm its neighbours twice. Any other bell is answered
alone, in its turn. What was taken and not begun never waits for a slow step: once that has run for 50 ms, or the worker
drains, claims are released and bells rung again; that counts as neither failure nor loss.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from shared.bootstrap import Services
from shared.clock import since_boot
from shared.domain.execution import Execution, Lease, Record
from shared.domain.lifecycle.decision import Advance
from shared.domain.lifecycle.transitions import claim, release
from shared.domain.status import StepStatus
from shared.errors import BucketError, LeaseLost
from shared.ids import new_token
from shared.queue.message import Bell
from shared.store.executions.port import Save
from worker.steps.agent_runner import Turn
from worker.steps.batch_writer import Ends
from worker.steps.claims import Claimed, Claims
from worker.steps.pending_writes import UNWRITTEN_MAX_S, Draft
from worker.supervision.step_interrupter import Minder

BELLS_MAX: Final = 8
QUICK_S: Final = 0.005

Answer = Callable[[Bell, Callable[[], Claimed | None]], None]


class Pace:
    """How many bells one may take at once: twice as many after quick runs, fewer after a slower one, one at first."""

    def __init__(self, quick_s: float = QUICK_S) -> None:
        self._quick_s = quick_s
        self._most = 1
        self._slowest: float | None = None

    def note(self, took_s: float) -> None:
        """Note how long the agents of one run took."""
        self._slowest = max(took_s, self._slowest or 0.0)

    def next(self) -> int:
        """Answer how many bells to take now, by what was noted since the last time."""
        slowest, self._slowest = self._slowest, None
        if slowest is None:
            return self._most
        if slowest <= self._quick_s:
            self._most = min(2 * self._most, BELLS_MAX)
        else:
            self._most = max(self._most // 2, 1) if slowest < UNWRITTEN_MAX_S else 1
        return self._most


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A bell that was taken and is not begun: how its step is claimed when it is, and how it is given back."""

    bell: Bell
    claim: Callable[[], Claimed | None]
    give_back: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Claim:
    """A claim that is decided on what was loaded, and its token."""

    bell: Bell
    token: str
    save: Save


class Batches:
    """Answers several bells in the runner's thread; ``tick`` is the companion's, ``wind_up`` also the minder's."""

    def __init__(
        self, services: Services, minder: Minder, claims: Claims, answer: Answer, unwritten_max_s: float
    ) -> None:
        """``answer`` runs what a bell names, once the given callable has claimed it."""
        self._services = services
        self._minder = minder
        self._claims = claims
        self._answer = answer
        self._unwritten_max_s = unwritten_max_s
        self._ends = Ends(services, unwritten_max_s)
        self._lock = threading.RLock()
        self._waiting: deque[_Waiting] = deque()
        self._began = 0.0

    def answer(self, bells: Sequence[Bell]) -> None:
        """Run what the bells name, as far as it is ours to run; nothing is left unwritten or held at the end."""
        try:
            self._waiting.extend(self._taken(bells))
            while not self._minder.is_draining and (next_up := self._next()) is not None:
                self._answer(next_up.bell, next_up.claim)
        finally:
            lease = self._ends.lease
            with nullcontext() if lease is None else self._minder.writing(lease):
                self.wind_up()

    def tick(self, now: float) -> None:
        """Let nothing wait for the step that runs at ``now`` seconds since boot; raises nothing."""
        if not self._began:
            return
        try:
            with self._lock:
                self._ends.write_if_due(now)
                if self._waiting and now - self._began >= self._unwritten_max_s:
                    self._give_back()
        except Exception:  # noqa: BLE001  (the thread that renews leases must live; what was taken is offered again)
            structlog.get_logger().exception("what waits beside a slow step was not given back")

    def wind_up(self) -> None:
        """Give back what is not begun, and write what is done."""
        with self._lock:
            self._give_back()
            self._ends.write()
            self._began = 0.0

    def _next(self) -> _Waiting | None:
        with self._lock:
            self._began = since_boot()
            return self._waiting.popleft() if self._waiting else None

    def _give_back(self) -> None:
        while self._waiting:
            self._waiting.popleft().give_back()
        self._ends.write()

    def _taken(self, bells: Sequence[Bell]) -> list[_Waiting]:
        """The bells with their claims, those that were claimed together first."""
        loaded = self._load(bells)
        decided: list[_Claim] = []
        others: list[_Waiting] = []
        for bell in bells:
            record = loaded.pop(bell.execution_id, None)  # a doubled bell finds it gone, and is answered alone
            found = None if record is None else self._decide(record, bell)
            if found is None:
                back = partial(self._ring_again, bell, None if record is None else record.execution)
                others.append(_Waiting(bell, partial(self._claims.claim, bell), back))
            else:
                decided.append(found)
        return [*self._claim_all(decided), *others]

    def _load(self, bells: Sequence[Bell]) -> dict[str, Record]:
        integrator = bells[0].integrator
        names = [bell.execution_id for bell in bells if bell.integrator == integrator]
        if self._minder.is_draining:
            return {}
        try:
            return {record.execution.id: record for record in self._services.batches.load_all(integrator, names)}
        except BucketError as away:
            structlog.get_logger().warning("bells are answered one by one", reason=away.message)
            return {}

    def _decide(self, record: Record, bell: Bell) -> _Claim | None:
        if not _is_fresh_chain(record.execution):
            return None
        token = new_token()
        advance = claim(record.execution, bell.step, token, self._services.clock.now(), self._services.terms)
        if advance is None or advance.run_here is None:
            return None
        return _Claim(bell, token, Save(record, advance))

    def _claim_all(self, claims: Sequence[_Claim]) -> list[_Waiting]:
        if not claims:
            return []
        try:
            ours = self._services.batches.save_all([each.save for each in claims])
        except BucketError as unknown:
            structlog.get_logger().warning("claims are repeated one by one", reason=unknown.message)
            ours = False
        return [self._held(each) if ours else self._unsure(each) for each in claims]

    def _held(self, claimed: _Claim) -> _Waiting:
        record = claimed.save.advance.written_on(claimed.save.before)
        lease = record.execution.lease_of(claimed.bell.step)
        draft = Draft(
            self._services, record, lease,
            told=claimed.save.before.lines_total,
            give_up=lambda: self._minder.is_drain_over,
            at_rest=self._ends.add,
            unwritten_max_s=self._unwritten_max_s,
        )  # fmt: skip
        back = partial(self._release, draft, lease)
        return _Waiting(claimed.bell, lambda: (Turn(record.execution, lease, {}), draft), back)

    def _unsure(self, claimed: _Claim) -> _Waiting:
        """One that somebody else may hold, or that may be ours already: known by its token when its turn comes."""
        seen = claimed.save.before.execution
        again = partial(self._claims.claim_on, seen, claimed.bell, claimed.token)
        return _Waiting(claimed.bell, again, partial(self._ring_again, claimed.bell, seen))

    def _release(self, draft: Draft, lease: Lease) -> None:
        services = self._services

        def decide(seen: Execution) -> Advance:
            return release(seen, lease, services.clock.now(), services.terms, "its worker is busy with another step")

        try:
            draft.decide(decide, agent="", took_s=0.0)
        except (LeaseLost, BucketError) as wrong:
            structlog.get_logger().warning("a step is left to its lease", step=lease.step, reason=wrong.message)

    def _ring_again(self, bell: Bell, seen: Execution | None) -> None:
        if seen is not None:  # else the reconciler offers it again
            self._services.publisher.rang_in_vain(seen, bell)


def _is_fresh_chain(execution: Execution) -> bool:
    """True where nothing has happened to a run since it was accepted, and one of its steps is ready."""
    untouched = execution.version == 1 and execution.rev == 1 and not execution.stateful and execution.cancel is None
    return untouched and sum(step.status is StepStatus.READY for step in execution.steps.values()) == 1
