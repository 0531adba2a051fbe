"""Retention deletes old runs with their outputs, and orphaned outputs, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR, ErrorKind, Execution, RunError
from shared.domain.lifecycle.decision import StepOutput
from shared.domain.lifecycle.transitions import cancel, complete, fail
from shared.ids import new_execution_id
from shared.store.access.audit_sequencer import AuditSequencer
from shared.store.access.audit_store import MongoAuditStore
from shared.store.database import Database
from shared.store.executions.checkpoint_store import MongoCheckpointStore
from shared.store.executions.retention import RetentionSweep
from shared.store.executions.store import MongoExecutionStore
from tests.builders import NOON, TIMINGS, ManualClock, accept_decision, claim_decision

WEEK_LATER = NOON + timedelta(days=7)


@pytest.fixture
def store(database: Database) -> MongoExecutionStore:
    return MongoExecutionStore(database, ManualClock())


def ended_run(store: MongoExecutionStore, **changes: Any) -> Execution:
    """Store an ended run with one externally stored output."""
    run = store.create(accept_decision("a", "b", **changes))
    claimed_run = store.save(run, claim_decision(run, "a")).execution
    lease = claimed_run.lease_of("a")
    output = StepOutput("a", b'{"large":1}', is_external=True)
    done = store.save(claimed_run, complete(claimed_run, lease, output, NOON, TIMINGS), lease=lease).execution
    cancelled = cancel(done, NOON)
    assert cancelled is not None
    return store.save(done, cancelled).execution


def output_names(database: Database) -> set[str]:
    return {document["_id"] for document in database.collection("outputs").find({}, {"_id": 1})}


def test_a_final_run_past_its_retention_is_deleted_with_its_outputs(
    database: Database, store: MongoExecutionStore
) -> None:
    old, young = ended_run(store), ended_run(store, created_at=WEEK_LATER)
    going_on = store.create(accept_decision("a"))
    assert len(RetentionSweep(database).delete_expired(WEEK_LATER, days=6)) == 1
    assert store.load(PUBLIC_INTEGRATOR, old.id) is None
    assert {name.partition(":")[0] for name in output_names(database)} == {young.id}
    assert store.load(PUBLIC_INTEGRATOR, young.id) is not None
    assert store.load(PUBLIC_INTEGRATOR, going_on.id) is not None, "an unfinished run is never too old"
    assert not RetentionSweep(database).delete_expired(WEEK_LATER, days=6)


def test_a_run_stays_until_its_event_is_in_the_audit_log_which_keeps_it(
    database: Database, store: MongoExecutionStore
) -> None:
    old, sweep = ended_run(store), RetentionSweep(database)
    event = {"action": "execution.submit", "subject": "key:x"}
    database.collection("executions").update_one({"_id": old.id}, {"$set": {"audit": event}})
    assert not sweep.delete_expired(WEEK_LATER, days=6)
    assert AuditSequencer(database).sequence(WEEK_LATER, 1)
    assert sweep.delete_expired(WEEK_LATER, days=6) == [(PUBLIC_INTEGRATOR, old.id)]
    sweep.delete_expired(WEEK_LATER + timedelta(days=365), days=6)
    assert [each.event.object for each in MongoAuditStore(database).read_all()] == [old.id]


def test_orphaned_outputs_are_deleted_when_their_run_has_ended_or_is_absent(
    database: Database, store: MongoExecutionStore
) -> None:
    final, going_on = ended_run(store), store.create(accept_decision("a"))
    [named] = output_names(database)
    absent = "1763700000_0000000000000000"
    for execution_id in (final.id, going_on.id, absent):
        database.collection("outputs").insert_one(
            {"_id": f"{execution_id}:a:lost", "execution_id": execution_id, "created_at": NOON, "json": b"{}"}
        )
    sweep = RetentionSweep(database)
    assert sweep.delete_orphaned_outputs(NOON + timedelta(hours=23)) == (0, ""), "not before a day has passed"
    deleted, after = sweep.delete_orphaned_outputs(WEEK_LATER)
    assert deleted == 2
    assert output_names(database) == {named, f"{going_on.id}:a:lost"}
    assert sweep.delete_orphaned_outputs(WEEK_LATER, after) == (0, "")


def test_a_large_checkpoint_that_is_kept_for_a_retry_is_no_orphan(
    database: Database, store: MongoExecutionStore
) -> None:
    checkpoints = MongoCheckpointStore(database, ManualClock())
    run = store.create(accept_decision("a"))
    run = store.save(run, claim_decision(run, "a")).execution
    checkpoints.save(run.lease_of("a"), 1, b"{}", is_external=True)
    [kept] = output_names(database)
    error = RunError("agent_error", "the provider is gone", ErrorKind.PERMANENT, "a", "a", 1, retryable=False)
    assert store.save(run, fail(run, run.lease_of("a"), error, NOON)).execution.is_done
    RetentionSweep(database).delete_orphaned_outputs(WEEK_LATER)
    assert output_names(database) == {kept}
    RetentionSweep(database).delete_expired(WEEK_LATER, days=6)
    assert output_names(database) == set(), "it goes with its run"


def test_a_run_that_cannot_be_read_keeps_its_outputs_and_no_other_runs_orphans(
    database: Database, store: MongoExecutionStore
) -> None:
    broken, other = ended_run(store), ended_run(store)
    for run in (broken, other):
        database.collection("outputs").insert_one(
            {"_id": f"{run.id}:a:lost", "execution_id": run.id, "created_at": NOON, "json": b"{}"}
        )
    database.collection("executions").update_one({"_id": broken.id}, {"$unset": {"basket": 1}})
    assert RetentionSweep(database).delete_orphaned_outputs(WEEK_LATER)[0] == 1
    assert f"{other.id}:a:lost" not in output_names(database)
    assert {name for name in output_names(database) if name.startswith(broken.id)} > {f"{broken.id}:a:lost"}


def test_the_search_for_old_outputs_reads_no_young_one(database: Database) -> None:
    young = new_execution_id(WEEK_LATER)
    outputs = database.collection("outputs")
    outputs.insert_many(
        {"_id": f"{young}:a:{number}", "execution_id": young, "created_at": WEEK_LATER, "json": b"{}"}
        for number in range(20)
    )
    outputs.database.command("profile", 2)
    try:
        assert RetentionSweep(database).delete_orphaned_outputs(WEEK_LATER + timedelta(hours=1)) == (0, "")
    finally:
        outputs.database.command("profile", 0)
    (query,) = outputs.database["system.profile"].find({"op": "query", "ns": outputs.full_name})
    assert query["docsExamined"] == 0
