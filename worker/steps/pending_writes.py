"""The decisions of one chain that are not written yet, and the one way in which they are.

Quick steps share a write: a decision is kept until the run rests, ends or hands something out, or has been unwritten
for 50 ms; then all are written at once, filtered by the lease that is *stored*. A crash in between repeats what was
not written, as it may anyway. The runner's thread decides, the heartbeat's or the minder's may write: one at a time.
The last decision on a run of a batch is left to ``at_rest``, which writes those of several runs at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from shared import faults
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.execution import Execution, ExecutionRecord, Lease
from shared.domain.lifecycle.decision import Decision
from shared.errors import BucketError, LeaseLost, NotStorable
from shared.live.publisher import SavedDecision
from shared.store.executions.port import BulkSave
from shared.store.executions.settle import settle
from worker.steps.agent_memory import AgentMemory

WRITE_DELAY_MAX_S: Final = 0.05
_BATCHABLE_MAX_BYTES: Final = 64 * 1024

DecideFn = Callable[[Execution], Decision]
FallbackFn = Callable[[NotStorable], DecideFn]


class PendingWrites:
    """One worker's hold on an execution, from a claim on: what is stored, and what is decided beyond it."""

    def __init__(
        self,
        services: Services,
        claimed_record: ExecutionRecord,
        lease: Lease,
        *,
        published_seq: int,
        give_up: Callable[[], bool],
        on_idle: Callable[[PendingWrites], None] | None = None,
        write_delay_max_s: float = WRITE_DELAY_MAX_S,
    ) -> None:
        """``claimed`` is the record of the claim that ``lease`` came from; lines up to seq ``told`` were told.

        ``at_rest`` takes this draft over once nothing is left to run here; ``claimed`` must be whole for that.
        """
        self._store = services.store
        self._publisher = services.publisher
        self._checkpoints = services.checkpoints
        self._memory = AgentMemory(services)
        self._quick_step_max_s = services.settings.heartbeat_s
        self._give_up = give_up
        self._lock = threading.RLock()
        self._on_idle = on_idle
        self._write_delay_max_s = write_delay_max_s
        self._record = claimed_record
        self._stored = self.execution = claimed_record.execution
        self._lease = lease
        self._pending: list[DecideFn] = []
        self._merged: Decision | None = None
        self._durations: list[tuple[str, float]] = []
        self._pending_since = 0.0
        self._fallback: FallbackFn | None = None
        self.published_seq = published_seq
        self.steps_with_checkpoints: set[str] = set()
        """The steps that may leave large checkpoints behind when they end."""

    def decide(self, decide: DecideFn, *, agent: str, took_s: float, fallback: FallbackFn | None = None) -> Decision:
        """Take a decision on an attempt of ``agent`` ("": none was made), and write it at once unless it may wait.

        Where the store refuses its content, ``instead`` answers another one to be taken in its place. Raises LeaseLost
        where the step has moved on, and NotStorable, as if it had not been taken, where there is no ``instead``.
        """
        with self._lock:
            advance = decide(self.execution)
            self._pending.append(decide)
            self._merged = advance if self._merged is None else _append_decision(self._merged, advance)
            self._durations.append((agent, took_s))
            self._pending_since = self._pending_since or boottime_s()
            self.execution = advance.execution
            self._fallback = fallback
            # After a heartbeat's time the lease may be another's: that is found out before another agent runs.
            if took_s < self._quick_step_max_s and _may_defer(advance):
                return advance
            if self._on_idle is not None and took_s < self._write_delay_max_s and _is_batchable(self._merged):
                self._on_idle(self)
                return advance
            # As it was written: where others wrote meanwhile, a join may have become this worker's to run.
            return self.write_or_fail_step() or advance

    @property
    def lease(self) -> Lease:
        """The lease that is stored."""
        return self._lease

    @property
    def is_written(self) -> bool:
        """True where all that was decided is stored."""
        return not self._pending

    def write_if_due(self, now: float) -> None:
        """Write what has been unwritten for too long at ``now`` seconds since boot; as ``write``."""
        if self._pending and now - self._pending_since >= self._write_delay_max_s:
            self.write()

    def write_or_fail_step(self) -> Decision | None:
        """As ``write``; what the store refuses for its content is decided anew, as ``decide`` was told."""
        with self._lock:
            try:
                return self.write()
            except NotStorable as refused:
                self._pending.pop()
                agent, took_s = self._durations.pop()
                self._merged = _merge_decisions(self._pending, self._stored)[0] if self._pending else None
                self.execution = self._stored if self._merged is None else self._merged.execution
                instead, self._on_idle = self._fallback, None
                if instead is None:
                    raise
                return self.decide(instead(refused), agent=agent, took_s=took_s)

    def pending_save(self) -> BulkSave:
        """Answer all that was decided, to be written beside other drafts; ``written`` must follow, or ``write``."""
        if self._merged is None:
            raise RuntimeError(f"nothing is left to write of {self._stored.id}")
        return BulkSave(self._record, self._merged, self._lease)

    def mark_written(self, save: BulkSave) -> SavedDecision:
        """Note that ``save`` was written; answer what there is to tell."""
        with self._lock:
            return self._on_saved(save.decision.apply_to(save.before), save.decision)

    def mark_published(self) -> None:
        """Note that what was written was told."""
        faults.reach("worker.published")
        self._delete_ended_checkpoints()

    def write(self) -> Decision | None:
        """Write all that was decided and tell Redis of it; answer it as one decision, None where there was nothing.

        Raises LeaseLost where not all of it stands any more.
        """
        with self._lock:
            if not self._pending:
                return None
            decided, lease, stand, stored, whole = tuple(self._pending), self._lease, [0], self._stored, self._merged

            def decide(seen: Execution) -> Decision:
                if seen is stored and whole is not None:
                    stand[0] = len(decided)
                    return whole
                advance, stand[0] = _merge_decisions(decided, seen)
                return advance

            settled = settle(
                self._store, self._stored, decide,
                lease=lease, is_own_write=lambda seen: _is_already_applied(seen, lease), give_up=self._give_up,
            )  # fmt: skip
            if settled is None:
                self._reset()
                raise LeaseLost(f"{self._stored.id} is gone")
            self._publisher.publish_decisions([self._on_saved(settled.record, settled.decision)], as_of=settled.as_of)
            self.mark_published()
            if stand[0] < len(decided):
                raise LeaseLost(f"{self._stored.id} has gone another way before all steps of a chain were written")
            if settled.decision.next_step is not None:
                ours = settled.decision.execution.lease_of(settled.decision.next_step)
                if not self._stored.steps[ours.step].is_running_under(
                    ours
                ):  # our answer was late: it was rescued meanwhile
                    raise LeaseLost(f"{ours.step} of {self._stored.id} has gone on elsewhere")
                self._lease = ours
            return settled.decision

    def _on_saved(self, record: ExecutionRecord, advance: Decision) -> SavedDecision:
        decided = SavedDecision(record, advance, self.published_seq, tuple(took for took in self._durations if took[0]))
        self._reset()
        self._record, self._stored, self.execution = record, record.execution, record.execution
        self.published_seq = record.lines_total
        # Before it is shown: who sees a run done may submit the next one, whose agent is to remember this one.
        self._memory.remember(self._stored, advance.outputs)
        faults.reach("worker.written")
        return decided

    def _reset(self) -> None:
        self._pending, self._durations, self._pending_since, self._merged = [], [], 0.0, None

    def _delete_ended_checkpoints(self) -> None:
        over = {step for step in self.steps_with_checkpoints if self._stored.steps[step].status.is_final}
        self.steps_with_checkpoints -= over
        for step in over:
            try:
                self._checkpoints.clear(self._stored.integrator, self._stored.id, step)
            except BucketError as away:
                structlog.get_logger().warning("checkpoints of an ended step were left behind", reason=away.message)


def _may_defer(advance: Decision) -> bool:
    """True where a decision may stay unwritten for a moment: this worker goes on, and nobody waits for it."""
    lossy = any(step.losses for step in advance.execution.steps.values())
    return advance.next_step is not None and not advance.dispatch and not lossy


def _is_batchable(whole: Decision) -> bool:
    """True where a decision may be written beside those on other runs: it is small, and has no output apart."""
    if whole.next_step is not None or any(output.is_external for output in whole.outputs):
        return False
    said = sum(len(event.data) + len(event.message) for event in whole.events)
    return said + sum(len(output.json) for output in whole.outputs) <= _BATCHABLE_MAX_BYTES


def _merge_decisions(decided: Sequence[DecideFn], seen: Execution) -> tuple[Decision, int]:
    """One decision that stands for all that still stand, and how many those are; LeaseLost where none does."""
    whole = decided[0](seen)
    for number, decide in enumerate(decided[1:], 1):
        try:
            following = decide(whole.execution)
        except LeaseLost:
            return whole, number
        whole = _append_decision(whole, following)
    return whole, len(decided)


def _append_decision(whole: Decision, following: Decision) -> Decision:
    """One decision that stands for two, of which the first handed nothing out."""
    return replace(following, events=(*whole.events, *following.events), outputs=(*whole.outputs, *following.outputs))


def _is_already_applied(seen: Execution, lease: Lease) -> bool:
    """True where the step of the stored lease was moved on by its holder: our own write, whose answer was lost."""
    step = seen.steps[lease.step]
    return step.matches_lease(lease) and not step.is_running_under(lease)
