"""The reconciler process: finds overdue executions and rescues or expires them (``python -m worker.reconciler``).

Several may run; one is the leader and acts, the others stand by. It is the only mechanism behind "an accepted run
always ends": a lost message, a killed worker, a flushed Redis, an API that died after its insert, the time of a retry
or a schedule, and a deadline all show as a due time that has passed. A message that waits in a long queue is not lost:
its step is postponed. Rules: docs/engine.md, section 5.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import redis
import structlog

from shared import fault_injection
from shared.bootstrap import Services, bootstrap
from shared.clock import boottime_s
from shared.domain.execution import Execution, Step
from shared.domain.lifecycle.decision import Decision
from shared.domain.lifecycle.step_transitions import with_steps
from shared.domain.lifecycle.timings import is_overdue
from shared.domain.lifecycle.transitions import expire, rescue
from shared.domain.status import StepStatus
from shared.errors import BucketError, OutcomeUnknown, Unavailable
from shared.ids import new_token
from shared.live import accept_markers
from shared.live.presence.reconciler_presence import ReconcilerPresence
from shared.live.redis_client import drop_if_demoted
from shared.queue import lost_messages
from shared.settings import Settings, warn_about_unknown_variables
from shared.store.executions.retention import RetentionSweep
from shared.store.executions.settle import settle
from shared.telemetry.logging_setup import configure_logging
from worker.maintenance.audit_sequencing import AuditSequencing
from worker.maintenance.feed_relay import FeedNotifier, FeedRelay
from worker.maintenance.grace_periods import GracePeriods
from worker.maintenance.retention_sweeper import RetentionSweeper

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
OVERDUE_BATCH_MAX: Final = 2_000
_STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


class Reconciler:
    """One process's passes over the overdue executions."""

    def __init__(self, services: Services, name: str) -> None:
        self._services = services
        self._name = name
        self._store = services.store
        self._clock = services.clock
        self._grace_periods = GracePeriods(services.settings)
        self._sweeper = RetentionSweeper(RetentionSweep(services.database), services.views, services.settings)
        self._oldest_messages: lost_messages.LostMessageDetector | None = None
        self._search_implausible_at = 0.0
        self._term_ends_at, self._leader_until = _NEVER, 0.0  # in the store's time, and in seconds since boot
        self.last_pass_at = boottime_s()
        """When the last pass ended, in seconds since boot, also if a store was away."""
        self._log = structlog.get_logger()

    @property
    def period_s(self) -> float:
        """How long to wait between two passes: a fifth of a hand-off time, at most half a heartbeat period.

        It must stay well below a heartbeat period: a later pass counts as one after a standstill of this process.
        """
        settings = self._services.settings
        return min(settings.handoff_s / 5, settings.heartbeat_s / 2)

    @property
    def is_leader(self) -> bool:
        """Whether this process leads, by the lease that its last pass acquired."""
        return boottime_s() < self._leader_until

    def reconcile_once(self) -> int:
        """Make one pass; return how many steps were rescued or runs expired.

        If the store is away it returns 0, and the next pass tries again; a grace period begins once the store replies.
        """
        self._grace_periods.begin_pass()
        try:
            return self._reconcile()
        except (Unavailable, OutcomeUnknown) as error:
            self._log.warning("the store did not reply to a pass of the reconciler", reason=error.message)
            self._grace_periods.record_failed_pass()
            return 0
        finally:
            self._grace_periods.end_pass()
            self.last_pass_at = boottime_s()

    def run(self, stop: threading.Event) -> None:
        """Make passes until ``stop`` is set."""
        while not stop.wait(self.period_s):
            try:
                self.reconcile_once()
            except Exception:  # noqa: BLE001  (it must go on: nothing else finds overdue runs)
                self._log.exception("a pass of the reconciler failed")

    def _reconcile(self) -> int:
        jump = self._clock.sync()
        if self._grace_periods.begin_clock_jump_grace(jump):
            self._search_implausible_at = 0.0
            self._log.warning("the store's clock jumped", seconds=jump.total_seconds())
        now = self._clock.now()
        if not self._acquire_leadership(now):
            self._grace_periods.record_replies()
            return 0
        implausible_after = self._implausible_after(now)
        overdue = self._store.find_overdue(now, implausible_after, OVERDUE_BATCH_MAX)
        if implausible_after is not None:
            self._search_implausible_at = boottime_s() + self._services.settings.lease_s / 2
        self._grace_periods.record_replies()
        self._oldest_messages = self._read_oldest_messages() if overdue else None
        rescued = 0
        waiting: list[Execution] = []
        possibly_withdrawn = self._possibly_withdrawn(overdue, now)
        for execution, _ in overdue:
            if execution.id in possibly_withdrawn:
                continue
            try:
                rescued += self._reconcile_execution(execution, now, waiting)
            except (Unavailable, OutcomeUnknown):
                raise
            except Exception:  # noqa: BLE001  (one run that cannot be rescued must not block those behind it)
                self._log.exception("a rescue failed", execution_id=execution.id)
        self._store.postpone(waiting)
        self._sweeper.sweep(now)
        return rescued

    def _implausible_after(self, now: datetime) -> datetime | None:
        """Return after when a due time is that of a clock that jumped back, if it is time to search for such, or None.

        Not in each pass: all long delays are read for it.
        """
        is_time = boottime_s() >= self._search_implausible_at
        return now + self._services.timings.due_ahead_max if is_time else None

    def _acquire_leadership(self, now: datetime) -> bool:
        """Return whether this process leads; its term is renewed at half of it, because a renewal is a write."""
        term = self._services.timings.handoff
        if term / 2 < self._term_ends_at - now <= term:
            return True
        requested_at = boottime_s()
        is_leader = self._store.acquire_leadership(self._name, now, now + term)
        self._term_ends_at = now + term if is_leader else _NEVER
        self._leader_until = requested_at + term.total_seconds() if is_leader else 0.0
        return is_leader

    def _read_oldest_messages(self) -> lost_messages.LostMessageDetector | None:
        try:
            return lost_messages.read_oldest_messages(self._services.redis)
        except redis.RedisError as error:
            drop_if_demoted(self._services.redis, error)
            return None  # without Redis an offer reaches no worker, and only makes the next hand-off time longer

    def _possibly_withdrawn(self, overdue: Sequence[tuple[Execution, datetime]], now: datetime) -> set[str]:
        """Return the ids of runs that the API may be about to withdraw: stored just now, without an accept marker.

        A run is not withdrawn any more if a worker has claimed it or if it has an accept marker. Such runs are handled
        at their due times (retry, schedule, deadline) even if they were stored just now.
        """
        unclaimed = [
            execution.id
            for execution, stored_at in overdue
            if execution.started_at is None and self._grace_periods.is_just_inserted(stored_at, now)
        ]
        try:
            return set(unclaimed) - accept_markers.find_marked(self._services.redis, unclaimed)
        except redis.RedisError as error:
            self._log.warning("the accept markers were not read", reason=str(error))
            return set(unclaimed)

    def _reconcile_execution(self, execution: Execution, now: datetime, waiting: list[Execution]) -> int:
        """Expire a run or rescue its due steps; return how many.

        An execution whose due time must be written is added to ``waiting``: its message still waits, or nothing in it
        is due, so what is stored of the whole is wrong.
        """
        if self._grace_periods.may_expire_running and expire(execution, now) is not None:
            return self._save_and_publish(execution, "deadline", lambda current: expire(current, self._clock.now()))
        due = [step for step in execution.steps.values() if is_overdue(execution, step, now, self._services.timings)]
        still_queued = [step for step in due if self._is_message_waiting(execution, step)]
        latest = now + self._services.timings.due_ahead_max
        is_due_by_wrong = not due and execution.due_by is not None and now < execution.due_by <= latest
        if still_queued or is_due_by_wrong:
            postponed = (replace(step, due_by=now + self._queued_grace(execution, step)) for step in still_queued)
            waiting.append(with_steps(execution, *postponed))
        return sum(self._rescue(execution, step) for step in due if step not in still_queued and self._may_rescue(step))

    def _is_message_waiting(self, execution: Execution, step: Step) -> bool:
        """Return whether the step's message waits in a list that is only long."""
        if self._oldest_messages is None or step.status is not StepStatus.READY or step.is_delayed:
            return False
        queue = execution.basket.step(step.id).queue
        return not self._oldest_messages.is_lost(step, queue, self._services.timings.handoff)

    def _queued_grace(self, execution: Execution, step: Step) -> timedelta:
        """Return for how long a step is postponed whose message still waits, as far as can be told."""
        timings, queue = self._services.timings, execution.basket.step(step.id).queue
        has_turn_passed = self._oldest_messages is not None and self._oldest_messages.has_turn_passed(step, queue)
        return timings.handoff if has_turn_passed else timings.queued_grace

    def _may_rescue(self, step: Step) -> bool:
        needs_redis = step.status is StepStatus.READY
        return self._grace_periods.may_offer(step) and not (needs_redis and self._oldest_messages is None)

    def _rescue(self, execution: Execution, step: Step) -> int:
        is_running = step.status is StepStatus.RUNNING
        reason = "lease_over" if is_running else "moment_come" if step.is_delayed else "not_claimed"

        def decide(current: Execution) -> Decision | None:
            current_step = current.steps[step.id]
            if (current_step.offers, current_step.claims) != (step.offers, step.claims):
                return None  # it was offered or claimed since; the next pass checks whether that message still waits
            return rescue(current, step.id, self._clock.now(), self._services.timings)

        return self._save_and_publish(execution, reason, decide)

    def _save_and_publish(
        self, execution: Execution, reason: str, decide: Callable[[Execution], Decision | None]
    ) -> int:
        settled = settle(self._store, execution, decide, give_up=lambda: True)
        if settled is None:
            return 0
        fault_injection.reach("reconciler.written")
        decision, as_of = settled.decision, settled.save_started_at_s
        if not self._services.publisher.publish_rescue(settled.record, decision, as_of=as_of, reason=reason):
            self._oldest_messages = None
        self._log.info("a step was rescued", execution_id=execution.id, steps=decision.dispatch, reason=reason)
        return 1


def stop_on_signal() -> threading.Event:
    """Return an event that SIGTERM or SIGINT sets; to be called before any other thread starts.

    A thread waits for them. A handler would run in the main thread, perhaps while that holds the event's own lock.
    """
    stop = threading.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)

    def set_on_signal() -> None:
        signal.sigwait(_STOP_SIGNALS)
        stop.set()

    threading.Thread(target=set_on_signal, name="stop-signals", daemon=True).start()
    return stop


def serve(services: Services) -> None:
    """Make passes and relay changes until SIGTERM or SIGINT; this process must have no other thread yet."""
    configure_logging("reconciler", services.settings.log_level)
    stop = stop_on_signal()
    reconciler = Reconciler(services, new_token())
    relay = FeedRelay(services.database, services.feed_writer, services.clock, lambda: reconciler.is_leader)
    relay.notify = FeedNotifier(services.redis)
    structlog.get_logger().info("the reconciler begins to search for overdue runs", every_s=reconciler.period_s)
    threading.Thread(target=relay.run, args=(stop,), name="feed-relay", daemon=True).start()
    sequencing = AuditSequencing(services.audit_sequencer, services.clock, lambda: reconciler.is_leader)
    threading.Thread(target=sequencing.run, args=(stop,), name="audit-sequencing", daemon=True).start()
    name = f"{socket.gethostname()}:{os.getpid()}"
    presence = ReconcilerPresence(services.redis, name, lambda: reconciler.is_leader, lambda: reconciler.last_pass_at)
    announcing = threading.Thread(target=presence.run, args=(stop,), name="presence")
    announcing.start()
    reconciler.run(stop)
    announcing.join()


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = Settings.from_environ()
    configure_logging("reconciler", settings.log_level)
    warn_about_unknown_variables()
    fault_injection.arm_from(settings.faults)
    serve(bootstrap(settings, "reconciler"))


if __name__ == "__main__":
    try:
        main()
    except BucketError as error:
        raise SystemExit(f"the reconciler cannot start: {error.message}") from error
