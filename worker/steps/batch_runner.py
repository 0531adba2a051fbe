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
from shared.clock import boottime_s
from shared.domain.execution import Execution, ExecutionRecord, Lease
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.transitions import claim, release
from shared.domain.status import StepStatus
from shared.errors import BucketError, LeaseLost
from shared.ids import new_token
from shared.queue.message import TaskMessage
from shared.store.executions.port import BulkSave
from worker.steps.agent_runner import ClaimedStep
from worker.steps.batch_writer import BatchWriter
from worker.steps.claims import ClaimResult, Claims
from worker.steps.pending_writes import WRITE_DELAY_MAX_S, PendingWrites
from worker.supervision.step_interrupter import StepInterrupter

BATCH_SIZE_MAX: Final = 8
QUICK_RUN_MAX_S: Final = 0.005

HandleMessage = Callable[[TaskMessage, Callable[[], ClaimResult | None]], None]


class BatchSizer:
    """How many bells one may take at once: twice as many after quick runs, fewer after a slower one, one at first."""

    def __init__(self, quick_run_max_s: float = QUICK_RUN_MAX_S) -> None:
        self._quick_run_max_s = quick_run_max_s
        self._size = 1
        self._slowest_s: float | None = None

    def record_duration(self, took_s: float) -> None:
        """Note how long the agents of one run took."""
        self._slowest_s = max(took_s, self._slowest_s or 0.0)

    def next_size(self) -> int:
        """Answer how many bells to take now, by what was noted since the last time."""
        slowest, self._slowest_s = self._slowest_s, None
        if slowest is None:
            return self._size
        if slowest <= self._quick_run_max_s:
            self._size = min(2 * self._size, BATCH_SIZE_MAX)
        else:
            self._size = max(self._size // 2, 1) if slowest < WRITE_DELAY_MAX_S else 1
        return self._size


@dataclass(frozen=True, slots=True)
class _PrefetchedMessage:
    """A bell that was taken and is not begun: how its step is claimed when it is, and how it is given back."""

    message: TaskMessage
    claim: Callable[[], ClaimResult | None]
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _PlannedClaim:
    """A claim that is decided on what was loaded, and its token."""

    message: TaskMessage
    token: str
    save: BulkSave


class BatchRunner:
    """Answers several bells in the runner's thread; ``tick`` is the companion's, ``wind_up`` also the minder's."""

    def __init__(
        self,
        services: Services,
        minder: StepInterrupter,
        claims: Claims,
        handle_message: HandleMessage,
        write_delay_max_s: float,
    ) -> None:
        """``answer`` runs what a bell names, once the given callable has claimed it."""
        self._services = services
        self._interrupter = minder
        self._claims = claims
        self._handle_message = handle_message
        self._write_delay_max_s = write_delay_max_s
        self._writer = BatchWriter(services, write_delay_max_s)
        self._lock = threading.RLock()
        self._prefetched: deque[_PrefetchedMessage] = deque()
        self._step_began_at = 0.0

    def run(self, messages: Sequence[TaskMessage]) -> None:
        """Run what the bells name, as far as it is ours to run; nothing is left unwritten or held at the end."""
        try:
            self._prefetched.extend(self._claim_batch(messages))
            while not self._interrupter.is_draining and (next_up := self._next_prefetched()) is not None:
                self._handle_message(next_up.message, next_up.claim)
        finally:
            lease = self._writer.lease
            with nullcontext() if lease is None else self._interrupter.mark_busy(lease):
                self.flush()

    def on_tick(self, now: float) -> None:
        """Let nothing wait for the step that runs at ``now`` seconds since boot; raises nothing."""
        if not self._step_began_at:
            return
        try:
            with self._lock:
                self._writer.write_if_due(now)
                if self._prefetched and now - self._step_began_at >= self._write_delay_max_s:
                    self._release_prefetched()
        except Exception:  # noqa: BLE001  (the thread that renews leases must live; what was taken is offered again)
            structlog.get_logger().exception("what waits beside a slow step was not given back")

    def flush(self) -> None:
        """Give back what is not begun, and write what is done."""
        with self._lock:
            self._release_prefetched()
            self._writer.write()
            self._step_began_at = 0.0

    def _next_prefetched(self) -> _PrefetchedMessage | None:
        with self._lock:
            self._step_began_at = boottime_s()
            return self._prefetched.popleft() if self._prefetched else None

    def _release_prefetched(self) -> None:
        while self._prefetched:
            self._prefetched.popleft().release()
        self._writer.write()

    def _claim_batch(self, bells: Sequence[TaskMessage]) -> list[_PrefetchedMessage]:
        """The bells with their claims, those that were claimed together first."""
        loaded = self._load_executions(bells)
        decided: list[_PlannedClaim] = []
        others: list[_PrefetchedMessage] = []
        for bell in bells:
            record = loaded.pop(bell.execution_id, None)  # a doubled bell finds it gone, and is answered alone
            found = None if record is None else self._plan_claim(record, bell)
            if found is None:
                back = partial(self._redeliver, bell, None if record is None else record.execution)
                others.append(_PrefetchedMessage(bell, partial(self._claims.claim, bell), back))
            else:
                decided.append(found)
        return [*self._save_claims(decided), *others]

    def _load_executions(self, bells: Sequence[TaskMessage]) -> dict[str, ExecutionRecord]:
        integrator = bells[0].integrator
        names = [bell.execution_id for bell in bells if bell.integrator == integrator]
        if self._interrupter.is_draining:
            return {}
        try:
            return {record.execution.id: record for record in self._services.bulk.load_all(integrator, names)}
        except BucketError as away:
            structlog.get_logger().warning("bells are answered one by one", reason=away.message)
            return {}

    def _plan_claim(self, record: ExecutionRecord, bell: TaskMessage) -> _PlannedClaim | None:
        if not _is_fresh_chain(record.execution):
            return None
        token = new_token()
        advance = claim(record.execution, bell.step, token, self._services.clock.now(), self._services.timings)
        if advance is None or advance.next_step is None:
            return None
        return _PlannedClaim(bell, token, BulkSave(record, advance))

    def _save_claims(self, claims: Sequence[_PlannedClaim]) -> list[_PrefetchedMessage]:
        if not claims:
            return []
        try:
            ours = self._services.bulk.save_all([each.save for each in claims])
        except BucketError as unknown:
            structlog.get_logger().warning("claims are repeated one by one", reason=unknown.message)
            ours = False
        return [self._confirmed(each) if ours else self._unconfirmed(each) for each in claims]

    def _confirmed(self, claimed: _PlannedClaim) -> _PrefetchedMessage:
        record = claimed.save.decision.apply_to(claimed.save.before)
        lease = record.execution.lease_of(claimed.message.step)
        draft = PendingWrites(
            self._services, record, lease,
            published_seq=claimed.save.before.lines_total,
            give_up=lambda: self._interrupter.is_drain_over,
            on_idle=self._writer.add,
            write_delay_max_s=self._write_delay_max_s,
        )  # fmt: skip
        back = partial(self._release_claim, draft, lease)
        return _PrefetchedMessage(claimed.message, lambda: (ClaimedStep(record.execution, lease, {}), draft), back)

    def _unconfirmed(self, claimed: _PlannedClaim) -> _PrefetchedMessage:
        """One that somebody else may hold, or that may be ours already: known by its token when its turn comes."""
        seen = claimed.save.before.execution
        again = partial(self._claims.claim_loaded, seen, claimed.message, claimed.token)
        return _PrefetchedMessage(claimed.message, again, partial(self._redeliver, claimed.message, seen))

    def _release_claim(self, draft: PendingWrites, lease: Lease) -> None:
        services = self._services

        def decide(seen: Execution) -> Decision:
            return release(seen, lease, services.clock.now(), services.timings, "its worker is busy with another step")

        try:
            draft.decide(decide, agent="", took_s=0.0)
        except (LeaseLost, BucketError) as wrong:
            structlog.get_logger().warning("a step is left to its lease", step=lease.step, reason=wrong.message)

    def _redeliver(self, bell: TaskMessage, seen: Execution | None) -> None:
        if seen is not None:  # else the reconciler offers it again
            self._services.publisher.redeliver(seen, bell)


def _is_fresh_chain(execution: Execution) -> bool:
    """True where nothing has happened to a run since it was accepted, and one of its steps is ready."""
    untouched = execution.version == 1 and execution.rev == 1 and not execution.stateful and execution.cancel is None
    return untouched and sum(step.status is StepStatus.READY for step in execution.steps.values()) == 1
