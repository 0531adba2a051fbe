"""Runs task messages: one, or several behind a backlog of quick steps: one read, one bulk claim, one bulk save.

    messages -> load all -> claim all -> run one after the other -> save all outcomes, publish them

The claims of quick idempotent agents are not stored before they run (``deferred_claim``). Of the others, only fresh
chains are claimed together: runs with one ready step, to which nothing has happened since they were accepted. So the
whole run is known after the write, and a step that has lost a worker cannot harm its neighbours twice. Any other
message is claimed alone, in its turn. A message that was taken and not begun never waits for a slow step: once that
step has run for 50 ms, or the worker drains, claims are released and messages are sent again. This counts as neither
failure nor loss (docs/engine.md, section 10).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import Execution, ExecutionRecord, Lease
from shared.domain.lifecycle.transitions import claim, release
from shared.domain.status import StepStatus
from shared.errors import BucketError, LeaseLost
from shared.ids import new_token
from shared.queue.message import TaskMessage
from shared.store.executions.bulk import BulkSave
from worker.steps.batch_writer import BatchWriter
from worker.steps.claims import ClaimedStep, Claims
from worker.steps.deferred_claim import DeferredClaim, may_defer_claim
from worker.steps.pending_writes import WRITE_DELAY_MAX_S, PendingWrites
from worker.steps.run_loader import RunLoader
from worker.supervision.step_interrupter import StepInterrupter

BATCH_SIZE_MAX: Final = 16
QUICK_RUN_MAX_S: Final = 0.005

ClaimFn = Callable[[], ClaimedStep | None]


class BatchSizer:
    """Adaptive batch size (MIMD, like AIMD): doubles after quick runs and halves after a slower one.

    It begins at 1, is at most :data:`BATCH_SIZE_MAX`, and falls back to 1 after a run of ``WRITE_DELAY_MAX_S`` or more.
    """

    def __init__(self) -> None:
        self._size = 1
        self._slowest_s: float | None = None

    def record_duration(self, took_s: float) -> None:
        """Record how long the agents of one run took, in seconds."""
        self._slowest_s = max(took_s, self._slowest_s or 0.0)

    def next_size(self) -> int:
        """Return how many messages to take now, from the durations that were recorded since the last call."""
        slowest_s, self._slowest_s = self._slowest_s, None
        if slowest_s is None:
            return self._size
        if slowest_s <= QUICK_RUN_MAX_S:
            self._size = min(2 * self._size, BATCH_SIZE_MAX)
        else:
            self._size = max(self._size // 2, 1) if slowest_s < WRITE_DELAY_MAX_S else 1
        return self._size


@dataclass(frozen=True, slots=True)
class _PrefetchedMessage:
    """A prefetched message that is not begun: how to claim its step in its turn, and how to give it back."""

    message: TaskMessage
    claim: ClaimFn
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _PlannedClaim:
    """A claim that is decided on the loaded execution and not saved yet, with its token."""

    message: TaskMessage
    token: str
    save: BulkSave


class BatchRunner:
    """Runs batches of messages in the runner's thread.

    The heartbeat thread calls ``on_tick``; the interrupter's thread may call ``flush``.
    """

    def __init__(
        self,
        services: Services,
        interrupter: StepInterrupter,
        claims: Claims,
        handle_message: Callable[[TaskMessage, ClaimFn], None],
    ) -> None:
        """``handle_message`` runs the step that a message names, after it has claimed it by the given callable."""
        self._services = services
        self._interrupter = interrupter
        self._claims = claims
        self._handle_message = handle_message
        self._loader = RunLoader(services)
        self._writer = BatchWriter(services)
        self._lock = threading.RLock()
        self._prefetched: deque[_PrefetchedMessage] = deque()
        self._step_began_at = 0.0
        self._is_store_away = False

    def run(self, messages: Sequence[TaskMessage], copies: Sequence[bytes] | None = None) -> None:
        """Run the steps that the messages name, if this worker can claim them; ``copies`` of their runs are at hand.

        At the end every outcome is saved and every message that was not begun is given back.
        """
        self._is_store_away = False
        try:
            self._prefetched.extend(self._claim_batch(messages, copies))
            while not self._interrupter.is_draining and (next_up := self._next_prefetched()) is not None:
                self._handle_message(next_up.message, next_up.claim)
        finally:
            lease = self._writer.lease
            with nullcontext() if lease is None else self._interrupter.mark_busy(lease):
                self.flush()

    def on_tick(self, now: float) -> None:
        """Save finished outcomes and give back what has not begun if the running step is slow; raises nothing.

        ``now`` is in seconds since boot.
        """
        if not self._step_began_at:
            return
        try:
            with self._lock:
                self._writer.write_if_due(now)
                if self._prefetched and now - self._step_began_at >= WRITE_DELAY_MAX_S:
                    self._release_prefetched()
        except Exception:  # noqa: BLE001  (the thread that renews leases must live; these steps will be rescued)
            structlog.get_logger().exception("steps that wait for a slow step were not given back")

    def flush(self) -> None:
        """Give back the messages that are not begun, and save the outcomes of the runs that are done."""
        with self._lock:
            self._release_prefetched()
            self._step_began_at = 0.0

    def _next_prefetched(self) -> _PrefetchedMessage | None:
        with self._lock:
            self._step_began_at = boottime_s()
            return self._prefetched.popleft() if self._prefetched else None

    def _release_prefetched(self) -> None:
        """Give back the messages that are not begun, and save this with the finished outcomes."""
        while self._prefetched:
            self._prefetched.popleft().release()
        self._writer.write()

    def _claim_batch(self, messages: Sequence[TaskMessage], copies: Sequence[bytes] | None) -> list[_PrefetchedMessage]:
        """Return the messages with their claims, those that were claimed together first."""
        loaded = self._loader.load(messages, copies)
        planned: list[_PlannedClaim] = []
        others: list[_PrefetchedMessage] = []
        deferred: list[_PrefetchedMessage] = []
        for message in _without_doubles(messages):
            # Of two steps of one run the second is run alone.
            record = loaded.pop((message.integrator, message.execution_id), None)
            if record is not None and self._may_defer_claim(record.execution, message):
                claim_later = partial(self._begin_unclaimed, record, message)
                release_message = partial(self._redeliver, message, record.execution)
                deferred.append(_PrefetchedMessage(message, claim_later, release_message))
                continue
            planned_claim = None if record is None else self._plan_claim(record, message)
            if planned_claim is None:
                release_message = partial(self._redeliver, message, None if record is None else record.execution)
                others.append(_PrefetchedMessage(message, partial(self._claims.claim, message), release_message))
            else:
                planned.append(planned_claim)
        return [*self._save_claims(planned), *deferred, *others]

    def _may_defer_claim(self, execution: Execution, message: TaskMessage) -> bool:
        services, step = self._services, message.step
        return _is_fresh_chain(execution) and may_defer_claim(
            services.catalogue, execution, step, services.clock.now(), services.timings
        )

    def _begin_unclaimed(self, record: ExecutionRecord, message: TaskMessage) -> ClaimedStep | None:
        try:
            deferred_claim = DeferredClaim(
                record.execution, message.step, self._services.clock.now(), self._services.timings
            )
        except LeaseLost:  # the message names a step that is not ready
            return None
        pending_writes = self._pending_writes(record, deferred_claim.lease, record.lines_total, deferred_claim)
        return self._claims.begin_step(pending_writes, message.step, {})

    def _plan_claim(self, record: ExecutionRecord, message: TaskMessage) -> _PlannedClaim | None:
        if self._interrupter.is_draining or not _is_fresh_chain(record.execution):
            return None
        token = new_token()
        decision = claim(record.execution, message.step, token, self._services.clock.now(), self._services.timings)
        if decision is None or decision.next_step is None:
            return None
        return _PlannedClaim(message, token, BulkSave(record, decision))

    def _save_claims(self, claims: Sequence[_PlannedClaim]) -> list[_PrefetchedMessage]:
        if not claims:
            return []
        try:
            are_saved = self._services.bulk.save_all([each.save for each in claims])
        except BucketError as error:
            structlog.get_logger().warning("claims are repeated one by one", reason=error.message)
            are_saved = False
        return [self._confirmed(each) if are_saved else self._unconfirmed(each) for each in claims]

    def _confirmed(self, planned_claim: _PlannedClaim) -> _PrefetchedMessage:
        message, save = planned_claim.message, planned_claim.save
        record = save.decision.apply_to(save.before)
        lease = record.execution.lease_of(message.step)
        pending_writes = self._pending_writes(record, lease, save.before.lines_total)
        begin_step = partial(self._claims.begin_step, pending_writes, message.step, {})
        return _PrefetchedMessage(message, begin_step, partial(self._release_claim, pending_writes, lease))

    def _pending_writes(
        self, record: ExecutionRecord, lease: Lease, published_seq: int, deferred_claim: DeferredClaim | None = None
    ) -> PendingWrites:
        return PendingWrites(
            self._services, record, lease, published_seq=published_seq, deferred_claim=deferred_claim,
            give_up=lambda: self._interrupter.is_drain_over, on_idle=self._writer.add,
        )  # fmt: skip

    def _unconfirmed(self, planned_claim: _PlannedClaim) -> _PrefetchedMessage:
        """Return a claim that may be ours already or another worker's: in its turn, its token tells which."""
        message, execution = planned_claim.message, planned_claim.save.before.execution
        claim_again = partial(self._claims.claim_loaded, execution, message, planned_claim.token)
        return _PrefetchedMessage(message, claim_again, partial(self._release_unconfirmed, planned_claim))

    def _release_unconfirmed(self, planned_claim: _PlannedClaim) -> None:
        """Give back a claim if it is stored after all, else its message alone; one left behind waits for a rescue.

        After a read that failed no other is tried in this batch: the thread that renews leases may be waiting here.
        """
        message, before = planned_claim.message, planned_claim.save.before.execution
        stored: Execution | None = None
        if not self._is_store_away:
            try:
                stored = self._services.store.load(message.integrator, message.execution_id)
            except BucketError as error:
                self._is_store_away = True
                structlog.get_logger().warning("claims may be left to their leases", reason=error.message)
        if stored is not None and stored.steps[message.step].token == planned_claim.token:
            self._confirmed(planned_claim).release()
        else:
            self._redeliver(message, before)

    def _release_claim(self, pending_writes: PendingWrites, lease: Lease) -> None:
        now, timings, reason = self._services.clock.now, self._services.timings, "its worker is busy with another step"
        try:
            pending_writes.decide(lambda run, _: release(run, lease, now(), timings, reason), agent="", took_s=0.0)
        except BucketError as error:
            structlog.get_logger().warning("a step is left to its lease", step=lease.step, reason=error.message)

    def _redeliver(self, message: TaskMessage, execution: Execution | None) -> None:
        if execution is not None:  # else the reconciler offers it again
            self._services.publisher.redeliver(execution, message)


def _without_doubles(messages: Sequence[TaskMessage]) -> Iterable[TaskMessage]:
    return {(message.integrator, message.execution_id, message.step): message for message in messages}.values()


def _is_fresh_chain(execution: Execution) -> bool:
    """Return whether nothing has happened to a run since it was accepted, and exactly one of its steps is ready."""
    is_untouched = execution.version == 1 and execution.rev == 1 and not execution.stateful and execution.cancel is None
    return is_untouched and sum(step.status is StepStatus.READY for step in execution.steps.values()) == 1
