"""Offers overdue steps again: ``python -m worker.reconciler``. Several may run; one acts, the others stand by.

It is the only mechanism behind "an accepted run always ends": a lost message, a killed worker, a flushed Redis, an
API that died after its insert, a retry's or a schedule's moment and a deadline all show as a due moment that has
passed. A message that waits in a long queue is not lost: its step is left alone for another while.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import redis
import structlog

from shared import faults
from shared.bootstrap import Services, bootstrap
from shared.clock import since_boot
from shared.domain.execution import Execution, Step
from shared.domain.lifecycle.decision import Advance
from shared.domain.lifecycle.step_transitions import with_steps
from shared.domain.lifecycle.timings import is_due
from shared.domain.lifecycle.transitions import expire, rescue
from shared.domain.status import StepStatus
from shared.errors import BucketError, OutcomeUnknown, Unavailable
from shared.ids import new_token
from shared.live import accept_markers
from shared.queue import lost_messages
from shared.settings import Settings, warn_of_unknown
from shared.store.executions.retention import Sweep
from shared.store.executions.settle import settle
from shared.telemetry.logging_setup import configure_logging
from worker.maintenance.feed_relay import Announcer, Relay
from worker.maintenance.grace_periods import Patience
from worker.maintenance.sweeper import Sweeper

TAKEN_AT_ONCE: Final = 2_000


class Reconciler:
    """One process's looks at what is overdue."""

    def __init__(self, services: Services, name: str) -> None:
        self._services = services
        self._name = name
        self._store = services.store
        self._clock = services.clock
        self._patience = Patience(services.settings)
        self._sweeper = Sweeper(Sweep(services.database), services.views, services.settings)
        self._ends: lost_messages.QueueEnds | None = None
        self._leads_until = 0.0
        self._log = structlog.get_logger()

    @property
    def period_s(self) -> float:
        """How long to wait between two looks: a fifth of a hand-off, and well below a heartbeat.

        A look that comes later than that after the last one is taken for one after a standstill.
        """
        settings = self._services.settings
        return min(settings.handoff_s / 5, settings.heartbeat_s / 2)

    @property
    def leads(self) -> bool:
        """True while its last look has found it the one that acts."""
        return since_boot() < self._leads_until

    def look(self) -> int:
        """Look once; answer how many steps were rescued. Raises nothing of the store's: it looks again later."""
        self._patience.begin_look()
        try:
            return self._look()
        except (Unavailable, OutcomeUnknown) as away:
            self._log.warning("a look was not answered", reason=away.message)
            self._patience.after_outage()
            return 0
        finally:
            self._patience.end_look()

    def run(self, stop: threading.Event) -> None:
        """Look again and again until ``stop`` is set."""
        while not stop.wait(self.period_s):
            try:
                self.look()
            except Exception:  # noqa: BLE001  (it must go on: nothing else looks)
                self._log.exception("a look failed")

    def _look(self) -> int:
        jump = self._clock.sync()
        if self._patience.note_jump(jump):
            self._log.warning("the store's clock jumped", seconds=jump.total_seconds())
        now = self._clock.now()
        asked_at, term_s = since_boot(), self._services.settings.handoff_s
        leads = self._store.lead(self._name, now, now + timedelta(seconds=term_s))
        self._leads_until = asked_at + term_s if leads else 0.0
        if not leads:
            return 0
        overdue = self._store.overdue(now, now + self._services.terms.ahead_max, TAKEN_AT_ONCE)
        self._ends = self._look_at_queues() if overdue else None
        done = 0
        waiting: list[Execution] = []
        doubted = self._doubted(overdue, now)
        for execution, _ in overdue:
            if execution.id in doubted:
                continue
            try:
                done += self._take_care_of(execution, now, waiting)
            except (Unavailable, OutcomeUnknown):
                raise
            except Exception:  # noqa: BLE001  (one that cannot be rescued must not keep all behind it from it)
                self._log.exception("a rescue failed", execution_id=execution.id)
        self._store.postpone(waiting)
        self._sweeper.sweep(now)
        return done

    def _look_at_queues(self) -> lost_messages.QueueEnds | None:
        try:
            return lost_messages.look(self._services.redis)
        except redis.RedisError:
            return None  # offered to nobody a step would only wait the longer for its next offer

    def _doubted(self, overdue: Sequence[tuple[Execution, datetime]], now: datetime) -> set[str]:
        """The ids of runs that the API may be about to take back: stored just now, and not known to be accepted.

        A run that a worker has claimed is not taken back any more, nor is one of whose acceptance there is word: both
        go on at their moments (a retry's, a schedule's, a deadline), however lately they were stored.
        """
        fresh = [
            execution.id
            for execution, stored_at in overdue
            if execution.started_at is None and self._patience.is_fresh(stored_at, now)
        ]
        try:
            return set(fresh) - accept_markers.noted(self._services.redis, fresh)
        except redis.RedisError as away:
            self._log.warning("which runs are known to be accepted was not read", reason=str(away))
            return set(fresh)

    def _take_care_of(self, execution: Execution, now: datetime, waiting: list[Execution]) -> int:
        """Expire a run or rescue its due steps; answer how many steps that were. What waits is put to ``waiting``."""
        if self._patience.may_end_what_runs and expire(execution, now) is not None:
            return self._carry_out(execution, "deadline", lambda seen: expire(seen, self._clock.now()))
        due = [step for step in execution.steps.values() if is_due(execution, step, now, self._services.terms)]
        still = [step for step in due if self._still_waits(execution, step)]
        if still or not due:
            later = now + self._services.terms.waiting
            waiting.append(with_steps(execution, *(replace(step, due_by=later) for step in still)))
        return sum(self._rescue(execution, step) for step in due if step not in still and self._may_rescue(step))

    def _still_waits(self, execution: Execution, step: Step) -> bool:
        """True where the step's message lies in a list that is merely long."""
        if self._ends is None or step.status is not StepStatus.READY or step.rests:
            return False
        queue = execution.basket.step(step.id).queue
        return not self._ends.has_lost(step, queue, self._services.terms.handoff)

    def _may_rescue(self, step: Step) -> bool:
        is_for_redis = step.status is StepStatus.READY
        return self._patience.may_offer(step) and not (is_for_redis and self._ends is None)

    def _rescue(self, execution: Execution, step: Step) -> int:
        reason = "lease_over" if step.status is StepStatus.RUNNING else "moment_come" if step.rests else "not_claimed"

        def decide(seen: Execution) -> Advance | None:
            found = seen.steps[step.id]
            if (found.offers, found.claims) != (step.offers, step.claims):
                return None  # another has seen to it since: whether that message waits is for the next look to say
            return rescue(seen, step.id, self._clock.now(), self._services.terms)

        return self._carry_out(execution, reason, decide)

    def _carry_out(self, execution: Execution, reason: str, decide: _Decide) -> int:
        settled = settle(self._store, execution, decide, give_up=lambda: True)
        if settled is None:
            return 0
        faults.reach("reconciler.written")
        publisher = self._services.publisher
        if not publisher.rescued(settled.record, settled.advance, as_of=settled.as_of, reason=reason):
            self._ends = None
        self._log.info("a step was rescued", execution_id=execution.id, steps=settled.advance.hand_out, reason=reason)
        return 1


_Decide = Callable[[Execution], Advance | None]


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = Settings.from_environ()
    configure_logging("reconciler", settings.log_level)
    warn_of_unknown()
    faults.arm_from(settings.faults)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    services = bootstrap(settings, "reconciler")
    reconciler = Reconciler(services, new_token())
    relay = Relay(services.database, services.feed_log, services.clock, lambda: reconciler.leads)
    relay.announce = Announcer(services.redis)
    structlog.get_logger().info("the reconciler looks for overdue steps", every_s=reconciler.period_s)
    threading.Thread(target=relay.run, args=(stop,), name="relay", daemon=True).start()
    reconciler.run(stop)


if __name__ == "__main__":
    try:
        main()
    except BucketError as wrong:
        raise SystemExit(f"the reconciler cannot start: {wrong.message}") from wrong
