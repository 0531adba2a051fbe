"""Offers overdue steps again: ``python -m worker.reconciler``. Several may run; one acts, the others stand by.

It is the only mechanism behind "an accepted run always ends": a lost message, a killed worker, a flushed Redis and
an API that died after its insert all show as a due moment that has passed. After an outage it is patient, because
workers that could not renew are not dead, and because a frozen mongod applies an insert on waking whose caller was
long told no.
"""

from __future__ import annotations

import signal
import threading
from datetime import datetime, timedelta
from typing import Final

import structlog

from shared import faults
from shared.bootstrap import Services, bootstrap
from shared.domain.execution import Execution
from shared.domain.life import rescue
from shared.domain.status import StepStatus
from shared.domain.terms import Advance, is_due
from shared.errors import BucketError, OutcomeUnknown, Unavailable
from shared.ids import new_token
from shared.settings import Settings, warn_of_unknown
from shared.store.clock import since_boot
from shared.store.settle import settle
from shared.telemetry.logs import configure_logging

TAKEN_AT_ONCE: Final = 500
CLOCK_JUMP: Final = timedelta(seconds=1)
STORED_RESOLUTION: Final = timedelta(seconds=1)


class Reconciler:
    """One process's looks at what is overdue; all its patience derives from lease and hand-off."""

    def __init__(self, services: Services, name: str) -> None:
        self._services = services
        self._name = name
        self._store = services.store
        self._clock = services.clock
        self._handoff_s = services.settings.handoff_s
        self._lease_s = services.settings.lease_s
        self._running_from = 0.0
        self._first_offers_from = 0.0
        self._looked_at = since_boot()
        self._is_heard = True
        self._log = structlog.get_logger()
        self._be_patient()

    @property
    def period_s(self) -> float:
        """How long to wait between two looks: a fifth of a hand-off."""
        return self._handoff_s / 5

    def look(self) -> int:
        """Look once; answer how many steps were rescued. Raises nothing of the store's: it looks again later."""
        try:
            return self._look()
        except (Unavailable, OutcomeUnknown) as away:
            self._log.warning("a look was not answered", reason=away.message)
            self._be_patient()
            return 0
        finally:
            self._looked_at = since_boot()

    def run(self, stop: threading.Event) -> None:
        """Look again and again until ``stop`` is set."""
        while not stop.wait(self.period_s):
            try:
                self.look()
            except Exception:  # noqa: BLE001  (it must go on: nothing else looks)
                self._log.exception("a look failed")

    def _look(self) -> int:
        if since_boot() - self._looked_at > self._services.settings.heartbeat_s:
            self._be_patient()  # this process stood still, and perhaps the whole machine did
        jump = self._clock.sync()
        if abs(jump) > CLOCK_JUMP:
            self._log.warning("the store's clock jumped", seconds=jump.total_seconds())
            self._running_from = max(self._running_from, since_boot() + self._lease_s)
        now = self._clock.now()
        if not self._store.lead(self._name, now, now + timedelta(seconds=self._handoff_s)):
            return 0
        far = now + self._services.terms.ahead_max
        overdue = self._store.overdue(now, far, TAKEN_AT_ONCE)
        self._is_heard = not overdue or self._services.publisher.is_heard()
        done = 0
        for execution, stored_at in overdue:
            try:
                done += self._rescue(execution, stored_at, now)
            except (Unavailable, OutcomeUnknown):
                raise
            except Exception:  # noqa: BLE001  (one that cannot be rescued must not keep all behind it from it)
                self._log.exception("a rescue failed", execution_id=execution.id)
        return done

    def _rescue(self, execution: Execution, stored_at: datetime, now: datetime) -> int:
        """Rescue what is due in one execution; answer how many steps that were."""
        terms = self._services.terms
        if now < stored_at + STORED_RESOLUTION + terms.handoff:
            return 0  # mongod applied the insert just now: its caller may have been told no, and may withdraw it
        due = [step.id for step in execution.steps.values() if is_due(execution, step, now, terms)]
        if not due:
            self._store.correct_due(execution)
        done = 0
        for step_id in due:
            if self._may_look_at(execution, step_id):
                done += self._offer_again(execution, step_id)
        return done

    def _may_look_at(self, execution: Execution, step_id: str) -> bool:
        step = execution.steps[step_id]
        if step.status is StepStatus.RUNNING:
            return since_boot() >= self._running_from
        if not self._is_heard:
            return False  # offered to nobody it would only wait the longer, once Redis is back, for its next offer
        return since_boot() >= self._first_offers_from or step.offers > 1 or step.claims > 0

    def _offer_again(self, execution: Execution, step_id: str) -> int:
        reason = "lease_over" if execution.steps[step_id].status is StepStatus.RUNNING else "not_claimed"

        def decide(seen: Execution) -> Advance | None:
            return rescue(seen, step_id, self._clock.now(), self._services.terms)

        settled = settle(self._store, execution, decide, give_up=lambda: True)
        if settled is None:
            return 0
        faults.reach("reconciler.written")
        publisher = self._services.publisher
        self._is_heard = publisher.rescued(settled.record, settled.advance, as_of=settled.as_of, reason=reason)
        self._log.info("a step was rescued", execution_id=execution.id, step=step_id, reason=reason)
        return 1

    def _be_patient(self) -> None:
        self._running_from = max(self._running_from, since_boot() + self._lease_s / 2)
        self._first_offers_from = since_boot() + self._handoff_s


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = Settings.from_environ()
    configure_logging("reconciler", settings.log_level)
    warn_of_unknown()
    faults.arm_from(settings.faults)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    reconciler = Reconciler(bootstrap(settings, "reconciler"), new_token())
    structlog.get_logger().info("the reconciler looks for overdue steps", every_s=reconciler.period_s)
    reconciler.run(stop)


if __name__ == "__main__":
    try:
        main()
    except BucketError as wrong:
        raise SystemExit(f"the reconciler cannot start: {wrong.message}") from wrong
