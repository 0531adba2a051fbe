"""A causal read shows everything that the primary had before it, once a majority has it too."""

from __future__ import annotations

from bson import ObjectId
from pymongo import WriteConcern

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.store.database import Database
from shared.store.executions.store import MongoExecutionStore
from shared.store.server_clock import ServerClock
from tests.builders import accept_decision


def test_a_causal_read_waits_until_a_majority_has_the_write(database: Database) -> None:
    store = MongoExecutionStore(database, ServerClock(database.read_server_time, sync_every_s=60))
    run = store.create(accept_decision())
    at_once = database.collection("executions").with_options(write_concern=WriteConcern(w=1))
    for _ in range(10):
        request_id = str(ObjectId())
        at_once.update_one({"_id": run.id}, {"$set": {"request_id": request_id}})
        snapshot = store.read(PUBLIC_INTEGRATOR, run.id, causal=True)
        assert snapshot is not None
        assert snapshot.execution.request_id == request_id
