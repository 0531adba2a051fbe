"""What nobody will ask for again goes, and nothing else does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR, Execution
from shared.domain.lifecycle.decision import StepOutput
from shared.domain.lifecycle.transitions import cancel, complete
from shared.ids import new_execution_id
from shared.store.database import Database
from shared.store.executions.retention import RetentionSweep
from shared.store.executions.store import MongoExecutionStore
from tests.builders import NOON, TERMS, HandClock, accepted, claimed

WEEK_LATER = NOON + timedelta(days=7)


@pytest.fixture
def store(database: Database) -> MongoExecutionStore:
    return MongoExecutionStore(database, HandClock())


def over(store: MongoExecutionStore, **changes: Any) -> Execution:
    """A run that has ended, with one output that lies apart."""
    run = store.create(accepted("a", "b", **changes))
    held = store.save(run, claimed(run, "a")).execution
    lease = held.lease_of("a")
    output = StepOutput("a", b'{"large":1}', is_external=True)
    done = store.save(held, complete(held, lease, output, NOON, TERMS), lease=lease).execution
    asked = cancel(done, NOON)
    assert asked is not None
    return store.save(done, asked).execution


def names(database: Database) -> set[str]:
    return {found["_id"] for found in database.collection("outputs").find({}, {"_id": 1})}


def test_a_final_run_past_its_retention_goes_with_its_outputs(database: Database, store: MongoExecutionStore) -> None:
    old, young = over(store), over(store, created_at=WEEK_LATER)
    going_on = store.create(accepted("a"))
    assert len(RetentionSweep(database).delete_expired(WEEK_LATER, days=6)) == 1
    assert store.load(PUBLIC_INTEGRATOR, old.id) is None
    assert {name.partition(":")[0] for name in names(database)} == {young.id}
    assert store.load(PUBLIC_INTEGRATOR, young.id) is not None
    assert store.load(PUBLIC_INTEGRATOR, going_on.id) is not None, "a run that goes on is never too old"
    assert not RetentionSweep(database).delete_expired(WEEK_LATER, days=6)


def test_outputs_that_nothing_names_go_once_their_run_is_over_or_absent(
    database: Database, store: MongoExecutionStore
) -> None:
    final, going_on = over(store), store.create(accepted("a"))
    [named] = names(database)
    absent = "1763700000_0000000000000000"
    for execution_id in (final.id, going_on.id, absent):
        database.collection("outputs").insert_one(
            {"_id": f"{execution_id}:a:lost", "execution_id": execution_id, "created_at": NOON, "json": b"{}"}
        )
    sweep = RetentionSweep(database)
    assert sweep.delete_orphaned_outputs(NOON + timedelta(hours=23)) == (0, ""), "not before a day has gone"
    gone, after = sweep.delete_orphaned_outputs(WEEK_LATER)
    assert gone == 2
    assert names(database) == {named, f"{going_on.id}:a:lost"}
    assert sweep.delete_orphaned_outputs(WEEK_LATER, after) == (0, "")


def test_no_young_output_is_read_to_find_the_old_ones(database: Database) -> None:
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
    (read,) = outputs.database["system.profile"].find({"op": "query", "ns": outputs.full_name})
    assert read["docsExamined"] == 0
