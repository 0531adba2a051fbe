"""A read of the newest shows all that the primary had before it, once a majority has that too."""

from __future__ import annotations

from bson import ObjectId
from pymongo import WriteConcern

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.store.database import Database
from shared.store.executions.store import MongoExecutionStore
from shared.store.server_clock import ServerClock
from tests.builders import accepted


def test_a_read_of_the_newest_waits_for_what_no_majority_has_yet(database: Database) -> None:
    store = MongoExecutionStore(database, ServerClock(database.read_server_time, sync_every_s=60))
    run = store.create(accepted())
    at_once = database.collection("executions").with_options(write_concern=WriteConcern(w=1))
    for _ in range(10):
        request_id = str(ObjectId())
        at_once.update_one({"_id": run.id}, {"$set": {"request_id": request_id}})
        found = store.read(PUBLIC_INTEGRATOR, run.id, causal=True)
        assert found is not None
        assert found.execution.request_id == request_id
