"""Sequencers: several at once, and one that dies, still make one chain that has each event once."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS
from structlog.testing import capture_logs

from shared import fault_injection
from shared.domain.access.audit_chain import chained_view, verify
from shared.domain.access.audit_event import BEGUN_MAX_S, AuditEvent, Outcome, event_view
from shared.store.access.audit_sequencer import AuditSequencer
from shared.store.access.audit_store import ChainedEvent, MongoAuditStore
from shared.store.database import Database

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SEQUENCE = """
import sys
from datetime import datetime, UTC
from shared import fault_injection
from shared.store.access.audit_sequencer import AuditSequencer
from shared.store.database import Database
fault_injection.arm_from("audit.chained=kill")
AuditSequencer(Database(sys.argv[1], "test", 5.0)).sequence(datetime(2026, 11, 21, 12, tzinfo=UTC), 1)
"""


def add(store: MongoAuditStore, object_id: int, at: datetime = NOW) -> None:
    event = AuditEvent(at=at, action="basket.create", outcome=Outcome.OK, subject="key:x", object=str(object_id))
    store.add(event)


def add_run(database: Database, run_id: str) -> None:
    database.collection("executions").insert_one(
        {
            "_id": run_id, "integrator": "acme", "created_at": NOW, "request_id": "r", "due_by": NOW,
            "audit": {"action": "execution.submit", "subject": "key:x", "of_a_newer_release": "x"},
        }
    )  # fmt: skip


def assert_sound(chain: list[ChainedEvent], objects: set[str]) -> None:
    records = [chained_view(event_view(each.seq, each.event), each.prev_hash, each.hash) for each in chain]
    report = verify(
        ((f"event {each.seq}", record) for each, record in zip(chain, records, strict=True)), from_start=True
    )
    assert report.faults == []
    assert sorted(str(each.event.object) for each in chain) == sorted(objects)


def test_sequencers_at_once_make_one_chain(database: Database) -> None:
    store = MongoAuditStore(database)

    def write(number: int) -> None:
        add(store, number)
        add_run(database, f"run {number}")
        while not AuditSequencer(database).sequence(NOW, 100):
            pass

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(40)))

    assert_sound(list(store.read_all()), {*map(str, range(40)), *(f"run {number}" for number in range(40))})
    assert database.collection("audit_pending").count_documents({}) == 0
    assert database.collection("executions").count_documents({"audit": {"$exists": True}}) == 0


def test_a_sequencer_that_dies_after_its_insert_leaves_nothing_to_be_appended_twice(
    database: Database, mongodb_url: str
) -> None:
    store = MongoAuditStore(database)
    for number in range(3):
        add(store, number)
    add_run(database, "run")

    died = subprocess.run([sys.executable, "-c", SEQUENCE, mongodb_url], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert database.collection("audit_pending").count_documents({}) == 3
    add(store, 3, NOW - timedelta(days=1))  # older than what is in the chain, and stored after it

    assert AuditSequencer(database).sequence(NOW, 5)
    assert_sound(list(store.read_all()), {"0", "1", "2", "3", "run"})


def test_an_event_that_has_begun_is_not_appended_before_it_ends(database: Database) -> None:
    store, sequencer = MongoAuditStore(database), AuditSequencer(database)
    begun = AuditEvent(at=NOW, action="basket.create", outcome=Outcome.UNKNOWN, subject="key:x")
    event_id = store.begin(begun)

    assert sequencer.sequence(NOW, 1)
    assert list(store.read_all()) == []
    store.complete(event_id, AuditEvent(at=NOW, action="basket.create", outcome=Outcome.OK, subject="key:x"))
    assert sequencer.sequence(NOW, 1)
    [chained] = store.read_all()
    assert chained.event.outcome is Outcome.OK


def test_an_end_that_comes_after_its_event_was_given_up_is_an_event_of_its_own(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB was away for longer than a minute, and the sequencer came back before the process that knows the end."""
    store, sequencer = MongoAuditStore(database), AuditSequencer(database)
    event = AuditEvent(at=NOW, action="basket.create", outcome=Outcome.OK, subject="key:x")
    early, late = store.begin(event), store.begin(event)
    # One end comes while the sequencer moves the event, the other afterwards; a reply was lost, so both come twice.
    monkeypatch.setitem(fault_injection.ARMED, "audit.chained", lambda: store.complete(early, event))
    later = NOW + timedelta(seconds=BEGUN_MAX_S + 1)
    assert sequencer.sequence(later, 9)
    for _ in range(2):
        store.complete(late, event)
        store.complete(early, event)
        assert sequencer.sequence(later, 9)
    outcomes = [each.event.outcome for each in store.read_all()]
    assert outcomes == [Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.OK, Outcome.OK]


@pytest.mark.parametrize(
    ("changes", "is_run"),
    [
        ({"$unset": {"action": ""}}, False),
        ({"$set": {"outcome": "zz"}}, False),
        ({"$set": {"outcome": 5}}, False),
        ({"$set": {"before": "{bad"}}, False),
        ({"$set": {"after": '{"share": NaN}'}}, False),
        ({"$set": {"at": "x"}, "$unset": {"outcome": ""}}, False),
        ({"$set": {"at": DatetimeMS(253_402_300_800_000)}}, False),
        ({"$set": {"audit": "x"}}, True),
        ({"$unset": {"audit.action": "", "created_at": ""}}, True),
    ],
)
def test_an_event_that_cannot_be_read_holds_no_other_back(
    database: Database, changes: dict[str, Any], *, is_run: bool
) -> None:
    store, sequencer = MongoAuditStore(database), AuditSequencer(database)
    add(store, 1, NOW - timedelta(seconds=2))
    broken = AuditEvent(at=NOW - timedelta(seconds=1), action="key.create", outcome=Outcome.OK, subject="key:y")
    add_run(database, "req-zz") if is_run else store.add(broken, "req-zz")
    stored = database.collection("executions" if is_run else "audit_pending")
    stored.update_one({"_id": "req-zz"}, changes)
    as_it_was = stored.find_one({"_id": "req-zz"}) or {}

    with capture_logs() as lines:
        assert sequencer.sequence(NOW, 5)
        add(store, 2)
        assert sequencer.sequence(NOW, 5)

    assert_sound(list(store.read_all()), {"1", "2", "req-zz"})
    objects = [each.event.object for each in store.read_all()]
    assert (objects[0], objects[-1]) == ("1", "2")
    [placeholder] = [each.event for each in store.read_all() if each.event.object == "req-zz"]
    assert (placeholder.action, placeholder.outcome) == ("audit.unreadable", Outcome.UNKNOWN)
    assert [line["event_id"] for line in lines if line["log_level"] == "error"] == ["req-zz"]
    kept = stored.find_one({"_id": "req-zz"}) or {}
    if is_run:
        assert (kept["audit_unreadable"], "audit" in kept) == (as_it_was["audit"], False)
    else:
        assert kept | as_it_was | {"outcome": kept["outcome"]} == kept


def test_the_placeholder_of_a_run_has_what_the_run_says_of_itself(database: Database) -> None:
    add_run(database, "run")
    own = {"audit.integrator": "globex", "audit.request_id": "other", "audit.at": NOW + timedelta(days=9)}
    damage = {"$set": {**own, "audit.action": 5}}
    database.collection("executions").update_one({"_id": "run"}, damage)
    assert AuditSequencer(database).sequence(NOW, 5)
    [placeholder] = [each.event for each in MongoAuditStore(database).read_all()]
    assert (placeholder.action, placeholder.subject) == ("audit.unreadable", "key:x")
    assert (placeholder.integrator, placeholder.request_id, placeholder.at) == ("acme", "r", NOW)


@pytest.mark.parametrize("is_run", [False, True])
def test_what_another_version_could_not_read_stays_where_it_was(database: Database, *, is_run: bool) -> None:
    store = MongoAuditStore(database)
    add_run(database, "old") if is_run else store.add(
        AuditEvent(at=NOW, action="key.create", outcome=Outcome.OK, subject="key:y"), "old"
    )
    chained = {"_id": 1, "event_id": "old", "prev_hash": "", "hash": "h", "action": "audit.unreadable", "at": NOW}
    database.collection("audit").insert_one({**chained, "outcome": "unknown", "subject": "unknown"})
    assert AuditSequencer(database).sequence(NOW, 5)
    assert [each.seq for each in store.read_all()] == [1]
    if is_run:
        kept = database.collection("executions").find_one({"_id": "old"}) or {}
        assert kept["audit_unreadable"]["action"] == "execution.submit"
    else:
        kept = database.collection("audit_pending").find_one({"_id": "old"}) or {}
        assert (kept["action"], kept["unreadable"]) == ("key.create", True)


def test_ids_that_are_no_text_stop_nothing(database: Database) -> None:
    store = MongoAuditStore(database)
    add(store, 1)
    event = {"at": NOW, "action": "basket.create", "outcome": "ok", "subject": "key:x", "object": "2"}
    database.collection("audit_pending").insert_one({"_id": {"made": "by hand"}, **event})
    database.collection("audit").insert_one({"_id": "no number", "event_id": "other"})
    assert AuditSequencer(database).sequence(NOW, 5)
    assert_sound(list(store.read_all()), {"1", "2"})
    assert database.collection("audit_pending").count_documents({}) == 0


def test_an_end_of_the_chain_without_its_hash_stops_nothing(database: Database) -> None:
    store, sequencer = MongoAuditStore(database), AuditSequencer(database)
    add(store, 1)
    assert sequencer.sequence(NOW, 5)
    database.collection("audit").update_one({"_id": 1}, {"$unset": {"hash": ""}})
    add(store, 2)
    assert sequencer.sequence(NOW, 5)
    records = [chained_view(event_view(each.seq, each.event), each.prev_hash, each.hash) for each in store.read_all()]
    report = verify(((f"event {record['seq']}", record) for record in records), from_start=True)
    assert report.faults == ["event 1 was changed: event 1 does not have its hash"]
