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
from shared.clock import since_boot
from shared.domain.execution import Execution, Lease, Record
from shared.domain.lifecycle.decision import Advance
from shared.errors import BucketError, LeaseLost, NotStorable
from shared.live.publisher import Decided
from shared.store.executions.port import Save
from shared.store.executions.settle import settle
from worker.steps.agent_memory import AgentMemory

UNWRITTEN_MAX_S: Final = 0.05
_BOUND_MAX_BYTES: Final = 64 * 1024

Decide = Callable[[Execution], Advance]
Instead = Callable[[NotStorable], Decide]


class Draft:
    """One worker's hold on an execution, from a claim on: what is stored, and what is decided beyond it."""

    def __init__(
        self,
        services: Services,
        claimed: Record,
        lease: Lease,
        *,
        told: int,
        give_up: Callable[[], bool],
        at_rest: Callable[[Draft], None] | None = None,
        unwritten_max_s: float = UNWRITTEN_MAX_S,
    ) -> None:
        """``claimed`` is the record of the claim that ``lease`` came from; lines up to seq ``told`` were told.

        ``at_rest`` takes this draft over once nothing is left to run here; ``claimed`` must be whole for that.
        """
        self._store = services.store
        self._publisher = services.publisher
        self._checkpoints = services.checkpoints
        self._memory = AgentMemory(services)
        self._quick_s = services.settings.heartbeat_s
        self._give_up = give_up
        self._lock = threading.RLock()
        self._at_rest = at_rest
        self._unwritten_max_s = unwritten_max_s
        self._record = claimed
        self._stored = self.execution = claimed.execution
        self._lease = lease
        self._decided: list[Decide] = []
        self._whole: Advance | None = None
        self._took: list[tuple[str, float]] = []
        self._since = 0.0
        self._instead: Instead | None = None
        self.told = told
        self.leftovers: set[str] = set()
        """The steps that may leave large checkpoints behind when they end."""

    def decide(self, decide: Decide, *, agent: str, took_s: float, instead: Instead | None = None) -> Advance:
        """Take a decision on an attempt of ``agent`` ("": none was made), and write it at once unless it may wait.

        Where the store refuses its content, ``instead`` answers another one to be taken in its place. Raises LeaseLost
        where the step has moved on, and NotStorable, as if it had not been taken, where there is no ``instead``.
        """
        with self._lock:
            advance = decide(self.execution)
            self._decided.append(decide)
            self._whole = advance if self._whole is None else _after(self._whole, advance)
            self._took.append((agent, took_s))
            self._since = self._since or since_boot()
            self.execution = advance.execution
            self._instead = instead
            # After a heartbeat's time the lease may be another's: that is found out before another agent runs.
            if took_s < self._quick_s and _may_wait(advance):
                return advance
            if self._at_rest is not None and took_s < self._unwritten_max_s and _may_be_bound(self._whole):
                self._at_rest(self)
                return advance
            # As it was written: where others wrote meanwhile, a join may have become this worker's to run.
            return self.write_or_instead() or advance

    @property
    def lease(self) -> Lease:
        """The lease that is stored."""
        return self._lease

    @property
    def is_written(self) -> bool:
        """True where all that was decided is stored."""
        return not self._decided

    def write_if_due(self, now: float) -> None:
        """Write what has been unwritten for too long at ``now`` seconds since boot; as ``write``."""
        if self._decided and now - self._since >= self._unwritten_max_s:
            self.write()

    def write_or_instead(self) -> Advance | None:
        """As ``write``; what the store refuses for its content is decided anew, as ``decide`` was told."""
        with self._lock:
            try:
                return self.write()
            except NotStorable as refused:
                self._decided.pop()
                agent, took_s = self._took.pop()
                self._whole = _together(self._decided, self._stored)[0] if self._decided else None
                self.execution = self._stored if self._whole is None else self._whole.execution
                instead, self._at_rest = self._instead, None
                if instead is None:
                    raise
                return self.decide(instead(refused), agent=agent, took_s=took_s)

    def pending(self) -> Save:
        """Answer all that was decided, to be written beside other drafts; ``written`` must follow, or ``write``."""
        if self._whole is None:
            raise RuntimeError(f"nothing is left to write of {self._stored.id}")
        return Save(self._record, self._whole, self._lease)

    def written(self, save: Save) -> Decided:
        """Note that ``save`` was written; answer what there is to tell."""
        with self._lock:
            return self._note(save.advance.written_on(save.before), save.advance)

    def published(self) -> None:
        """Note that what was written was told."""
        faults.reach("worker.published")
        self._clear_leftovers()

    def write(self) -> Advance | None:
        """Write all that was decided and tell Redis of it; answer it as one decision, None where there was nothing.

        Raises LeaseLost where not all of it stands any more.
        """
        with self._lock:
            if not self._decided:
                return None
            decided, lease, stand, stored, whole = tuple(self._decided), self._lease, [0], self._stored, self._whole

            def decide(seen: Execution) -> Advance:
                if seen is stored and whole is not None:
                    stand[0] = len(decided)
                    return whole
                advance, stand[0] = _together(decided, seen)
                return advance

            settled = settle(
                self._store, self._stored, decide,
                lease=lease, is_mine=lambda seen: _was_moved_on(seen, lease), give_up=self._give_up,
            )  # fmt: skip
            if settled is None:
                self._forget()
                raise LeaseLost(f"{self._stored.id} is gone")
            self._publisher.advanced_all([self._note(settled.record, settled.advance)], as_of=settled.as_of)
            self.published()
            if stand[0] < len(decided):
                raise LeaseLost(f"{self._stored.id} has gone another way before all steps of a chain were written")
            if settled.advance.run_here is not None:
                ours = settled.advance.execution.lease_of(settled.advance.run_here)
                if not self._stored.steps[ours.step].holds(ours):  # our answer was late: it was rescued meanwhile
                    raise LeaseLost(f"{ours.step} of {self._stored.id} has gone on elsewhere")
                self._lease = ours
            return settled.advance

    def _note(self, record: Record, advance: Advance) -> Decided:
        decided = Decided(record, advance, self.told, tuple(took for took in self._took if took[0]))
        self._forget()
        self._record, self._stored, self.execution = record, record.execution, record.execution
        self.told = record.lines_total
        # Before it is shown: who sees a run done may submit the next one, whose agent is to remember this one.
        self._memory.remember(self._stored, advance.outputs)
        faults.reach("worker.written")
        return decided

    def _forget(self) -> None:
        self._decided, self._took, self._since, self._whole = [], [], 0.0, None

    def _clear_leftovers(self) -> None:
        over = {step for step in self.leftovers if self._stored.steps[step].status.is_final}
        self.leftovers -= over
        for step in over:
            try:
                self._checkpoints.clear(self._stored.integrator, self._stored.id, step)
            except BucketError as away:
                structlog.get_logger().warning("checkpoints of an ended step were left behind", reason=away.message)


def _may_wait(advance: Advance) -> bool:
    """True where a decision may stay unwritten for a moment: this worker goes on, and nobody waits for it."""
    lossy = any(step.losses for step in advance.execution.steps.values())
    return advance.run_here is not None and not advance.hand_out and not lossy


def _may_be_bound(whole: Advance) -> bool:
    """True where a decision may be written beside those on other runs: it is small, and has no output apart."""
    if whole.run_here is not None or any(output.apart for output in whole.outputs):
        return False
    said = sum(len(event.data) + len(event.message) for event in whole.events)
    return said + sum(len(output.json) for output in whole.outputs) <= _BOUND_MAX_BYTES


def _together(decided: Sequence[Decide], seen: Execution) -> tuple[Advance, int]:
    """One decision that stands for all that still stand, and how many those are; LeaseLost where none does."""
    whole = decided[0](seen)
    for number, decide in enumerate(decided[1:], 1):
        try:
            following = decide(whole.execution)
        except LeaseLost:
            return whole, number
        whole = _after(whole, following)
    return whole, len(decided)


def _after(whole: Advance, following: Advance) -> Advance:
    """One decision that stands for two, of which the first handed nothing out."""
    return replace(following, events=(*whole.events, *following.events), outputs=(*whole.outputs, *following.outputs))


def _was_moved_on(seen: Execution, lease: Lease) -> bool:
    """True where the step of the stored lease was moved on by its holder: our own write, whose answer was lost."""
    step = seen.steps[lease.step]
    return step.was_under(lease) and not step.holds(lease)
