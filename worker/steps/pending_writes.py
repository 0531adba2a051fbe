"""Write-behind: the decisions of one chain that are not saved yet, and the one way in which they are saved.

Quick steps share a write, and so does the claim of a chain whose agents are idempotent (``deferred_claim``). A decision
is kept until this worker has no next step in the run, until the run ends or dispatches other steps, or until 50 ms have
passed. Then all decisions are saved by one write, filtered by the lease that is *stored*, if one is. A crash in between
repeats the steps that were not saved, which any crash may do. The runner's thread decides. The heartbeat thread also
decides, on the hand-backs of a batch, and so does the interrupter's thread after it took over; both may save too. One
thread decides or saves at a time. The last decision on a quick run is left to ``on_idle``, which saves the decisions on
several runs at once (docs/engine.md, section 10).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from shared import fault_injection
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import Execution, ExecutionRecord, Lease
from shared.domain.lifecycle.decision import Decision
from shared.domain.status import StepStatus
from shared.errors import BucketError, LeaseLost, NotStorable
from shared.live.publisher import SavedDecision
from shared.store.executions.bulk import BulkSave
from shared.store.executions.settle import settle
from worker.steps.agent_memory import AgentMemory
from worker.steps.deferred_claim import DeferredClaim, is_idempotent

WRITE_DELAY_MAX_S: Final = 0.05
_BATCHABLE_MAX_BYTES: Final = 64 * 1024

# From an execution, and the step that this worker has begun after it already, if any.
DecideFn = Callable[[Execution, str | None], Decision]
FallbackFn = Callable[[NotStorable], DecideFn]


@dataclass(frozen=True, slots=True)
class _PendingDecision:
    """How to decide, and the step that this worker goes on with before the decision is saved."""

    decide: DecideFn
    begun_step: str | None = None


class PendingWrites:
    """Write-behind buffer of one claimed execution: what is stored, and the decisions that are not saved yet."""

    def __init__(
        self,
        services: Services,
        record: ExecutionRecord,
        lease: Lease,
        *,
        published_seq: int,
        give_up: Callable[[], bool],
        on_idle: Callable[[PendingWrites], None] | None = None,
        deferred_claim: DeferredClaim | None = None,
    ) -> None:
        """Begin after a claim: ``record`` is the record of the claim that gave ``lease``.

        Or begin before it, with a ``deferred_claim``, which gives ``lease`` on ``record`` and is the first pending
        decision. Log lines up to ``published_seq`` are published already. ``on_idle`` takes this object over once
        nothing is left to run here; for that, ``record`` must be whole, with its log lines and outputs.
        """
        self._services = services
        self._memory = AgentMemory(services)
        self._give_up = give_up
        self._lock = threading.RLock()
        self._on_idle = on_idle
        self._record = record
        self._stored = self.execution = record.execution
        self.lease = lease
        """The lease that is stored, or that the deferred claim gives."""
        self._pending: list[_PendingDecision] = []
        self._merged: Decision | None = None
        self._durations: list[tuple[str, float]] = []
        self._pending_since = 0.0
        if deferred_claim is not None:
            self._merge(deferred_claim, deferred_claim.decision)
        self._fallback: FallbackFn | None = None
        self.published_seq = published_seq
        self.reports_stored = 0
        """How many reports were stored with checkpoints; the heartbeat, which publishes them, compares."""
        self.steps_with_checkpoints: set[str] = set()
        """The ids of steps that may leave large checkpoints behind when they complete."""

    def decide(self, decide: DecideFn, *, agent: str, took_s: float, fallback: FallbackFn | None = None) -> Decision:
        """Decide on an attempt of ``agent`` ("" if no attempt was made), and save the decision unless it may wait.

        If the store refuses the content, ``fallback`` returns another decision, which replaces this one. Raises
        LeaseLost if the step has moved on. Raises NotStorable if there is no ``fallback``; then the decision is undone.
        """
        with self._lock:
            decision = decide(self.execution, None)
            merged = self._merge(decide, decision)
            self._durations.append((agent, took_s))
            self._fallback = fallback
            # After a heartbeat period the lease may be lost, and that must be found out before the next agent runs.
            if took_s < self._services.settings.heartbeat_s and self._may_defer(decision):
                self._pending[-1] = _PendingDecision(decide, decision.next_step)
                return decision
            if self._on_idle is not None and took_s < WRITE_DELAY_MAX_S and _is_batchable(merged):
                self._on_idle(self)
                return decision
            # The decision as it was saved: if others wrote meanwhile, it may claim a join for this worker.
            return self.write_or_fail_step() or decision

    def _merge(self, decide: DecideFn, decision: Decision) -> Decision:
        """Add a pending decision; return all of them as one."""
        self._pending.append(_PendingDecision(decide))
        self._merged = merged = decision if self._merged is None else _append_decision(self._merged, decision)
        self._pending_since = self._pending_since or boottime_s()
        self.execution = decision.execution
        return merged

    def _may_defer(self, decision: Decision) -> bool:
        """Return whether a decision may stay unsaved for a moment: this worker goes on, no other step waits for it.

        Before a deadline it may not: the run could end with a step that has begun and does not show it. Neither may it
        while no claim is stored, if the next agent must not run twice at the same time.
        """
        execution = decision.execution
        if decision.next_step is None or decision.dispatch or execution.deadline is not None:
            return False
        if any(step.losses for step in execution.steps.values()):
            return False
        return self._is_claimed or is_idempotent(self._services.catalogue, execution, decision.next_step)

    @property
    def _is_claimed(self) -> bool:
        """Whether the lease is stored, and not only given by a deferred claim."""
        return self._stored.steps[self.lease.step].matches_lease(self.lease)

    @property
    def is_written(self) -> bool:
        """Whether every decision is stored."""
        return not self._pending

    def write_if_due(self, now: float) -> None:
        """Call ``write`` if the oldest decision has waited too long at ``now`` (seconds since boot)."""
        if self._pending and now - self._pending_since >= WRITE_DELAY_MAX_S:
            self.write()

    def write_or_fail_step(self) -> Decision | None:
        """Call ``write``; if the store refuses the content, decide again by the fallback that ``decide`` received."""
        with self._lock:
            try:
                return self.write()
            except NotStorable as error:
                self._pending.pop()
                agent, took_s = self._durations.pop()
                self._merged = _merge_decisions(self._pending, self._stored)[0] if self._pending else None
                self.execution = self._stored if self._merged is None else self._merged.execution
                fallback, self._on_idle = self._fallback, None
                if fallback is None:
                    raise
                return self.decide(fallback(error), agent=agent, took_s=took_s)

    def pending_save(self) -> BulkSave:
        """Return all decisions as one part of a bulk save; ``mark_written`` must follow, or else ``write``."""
        if self._merged is None:
            raise RuntimeError(f"nothing is left to write of {self._stored.id}")
        return BulkSave(self._record, self._merged, self.lease if self._is_claimed else None)

    def mark_written(self, save: BulkSave) -> SavedDecision:
        """Record that ``save`` was written; return what is to be published."""
        with self._lock:
            return self._on_saved(save.decision.apply_to(save.before), save.decision)

    def mark_published(self) -> None:
        """Record that what was written is published, and delete large checkpoints of the steps that are completed."""
        fault_injection.reach("worker.published")
        steps = self._stored.steps
        completed = {step for step in self.steps_with_checkpoints if steps[step].status is StepStatus.COMPLETED}
        self.steps_with_checkpoints -= completed
        for step in completed:
            try:
                self._services.checkpoints.delete_external(self._stored.integrator, self._stored.id, step)
            except BucketError as error:
                structlog.get_logger().warning("checkpoints of a completed step were left behind", reason=error.message)

    def write(self) -> Decision | None:
        """Save all decisions by an optimistic write and publish them; return them merged, None if there were none.

        Raises LeaseLost if some of the decisions no longer hold.
        """
        with self._lock:
            pending, lease, stored, merged = tuple(self._pending), self.lease, self._stored, self._merged
            if merged is None:
                return None
            applied_count = len(pending)

            def decide(execution: Execution) -> Decision:
                nonlocal applied_count
                if execution is stored:
                    return merged
                decision, applied_count = _merge_decisions(pending, execution)
                return decision

            settled = settle(
                self._services.store, stored, decide,
                lease=lease if self._is_claimed else None,
                is_own_write=lambda current: _is_already_applied(current, lease), give_up=self._give_up,
            )  # fmt: skip
            if settled is None:
                self._reset()
                raise LeaseLost(f"{stored.id} is gone")
            saved = self._on_saved(settled.record, settled.decision)
            self._services.publisher.publish_decisions([saved], as_of=settled.save_started_at_s)
            self.mark_published()
            if applied_count < len(pending):
                raise LeaseLost(f"{self._stored.id} has gone another way before all steps of a chain were written")
            if settled.decision.next_step is not None:
                next_lease = settled.decision.execution.lease_of(settled.decision.next_step)
                if not self._stored.steps[next_lease.step].is_running_under(next_lease):  # rescued: our reply came late
                    raise LeaseLost(f"{next_lease.step} of {self._stored.id} has gone on elsewhere")
                self.lease = next_lease
            return settled.decision

    def _on_saved(self, record: ExecutionRecord, decision: Decision) -> SavedDecision:
        saved = SavedDecision(record, decision, self.published_seq, tuple(took for took in self._durations if took[0]))
        self._reset()
        self._record, self._stored, self.execution = record, record.execution, record.execution
        self.published_seq = record.lines_total
        # Before the view is published: a caller that sees the run done may submit the next run, whose agent must find
        # the memory of this one.
        self._memory.remember(self._stored, decision.outputs)
        fault_injection.reach("worker.written")
        return saved

    def _reset(self) -> None:
        self._pending, self._durations, self._pending_since, self._merged = [], [], 0.0, None


def _is_batchable(merged: Decision) -> bool:
    """Return whether a decision may be saved together with other runs: it is small and has no external output."""
    if merged.next_step is not None or any(output.is_external for output in merged.outputs):
        return False
    log_bytes = sum(len(event.data) + len(event.message) for event in merged.events)
    return log_bytes + sum(len(output.json) for output in merged.outputs) <= _BATCHABLE_MAX_BYTES


def _merge_decisions(pending: Sequence[_PendingDecision], execution: Execution) -> tuple[Decision, int]:
    """Return one decision for all that still hold, and how many those are; raises LeaseLost if none holds."""
    merged = pending[0].decide(execution, pending[0].begun_step)
    for number, each in enumerate(pending[1:], 1):
        try:
            following = each.decide(merged.execution, each.begun_step)
        except LeaseLost:
            return merged, number
        merged = _append_decision(merged, following)
    return merged, len(pending)


def _append_decision(merged: Decision, following: Decision) -> Decision:
    """Return one decision for two, of which the first dispatched nothing."""
    return replace(following, events=(*merged.events, *following.events), outputs=(*merged.outputs, *following.outputs))


def _is_already_applied(execution: Execution, lease: Lease) -> bool:
    """Return whether the holder of the lease has moved its step on: our own write, whose reply was lost."""
    step = execution.steps[lease.step]
    return step.matches_lease(lease) and not step.is_running_under(lease)
