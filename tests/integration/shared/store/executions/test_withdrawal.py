"""A withdrawal beside the insert that it takes back: whichever the store applies first, the run is gone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

from pymongo.errors import DuplicateKeyError

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.errors import BucketError
from shared.store.database import Database
from shared.store.executions.store import MongoExecutionStore
from shared.store.server_clock import ServerClock
from tests.builders import accept_decision

RUNS = 300


def test_a_withdrawal_at_the_moment_of_the_insert_takes_the_run_back(database: Database) -> None:
    store = MongoExecutionStore(database, ServerClock(database.read_server_time, sync_every_s=60))
    both = Barrier(2)

    def insert(run_id: str) -> None:
        decision = accept_decision(id=run_id)
        both.wait(10)
        with suppress(BucketError, DuplicateKeyError):  # the tombstone was first
            store.create(decision)

    def withdraw(run_id: str) -> bool:
        both.wait(10)
        return store.withdraw(PUBLIC_INTEGRATOR, run_id)

    left = []
    with ThreadPoolExecutor(2) as threads:
        for number in range(RUNS):
            run_id = f"1763700000_{number:016x}"
            inserted, withdrawn = threads.submit(insert, run_id), threads.submit(withdraw, run_id)
            inserted.result(10)
            if not withdrawn.result(10) or store.load(PUBLIC_INTEGRATOR, run_id) is not None:
                left.append(run_id)
    assert left == []
