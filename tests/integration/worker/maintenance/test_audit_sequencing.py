"""The leading reconciler numbers new audit events, and goes on after the store was away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from shared.domain.access.audit_event import AuditEvent, Outcome
from shared.errors import Unavailable
from tests.integration.worker.conftest import WorkerHarness
from tests.waiting import wait_until
from worker.maintenance.audit_sequencing import AuditSequencing

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class FirstUnavailableClock:
    """The clock of a store that is away at the first look."""

    looks = 0

    def now(self) -> datetime:
        self.looks += 1
        if self.looks == 1:
            raise Unavailable("MongoDB is away")
        return NOW


@contextmanager
def running(sequencing: AuditSequencing) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=sequencing.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_the_leader_numbers_events_also_after_the_store_was_away(bench: WorkerHarness) -> None:
    store, clock, leads = bench.services.audit, FirstUnavailableClock(), threading.Event()
    store.add(AuditEvent(at=NOW, action="basket.create", outcome=Outcome.OK, subject="key:x"))
    looked = threading.Event()

    def is_leader() -> bool:
        looked.set()
        return leads.is_set()

    sequencing = AuditSequencing(bench.services.audit_sequencer, clock, is_leader, every_s=0.1)  # type: ignore[arg-type]
    with running(sequencing):
        assert looked.wait(30)
        assert (list(store.read_all()), clock.looks) == ([], 0)  # another process leads
        leads.set()
        wait_until(lambda: [each.seq for each in store.read_all()] == [1], 30, "the event has its number")
    assert clock.looks >= 2
