"""Checkpoints on a real MongoDB: written under the lease, invisible to pollers, and deleted with the step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR, Execution, Lease
from shared.domain.lifecycle.decision import StepOutput
from shared.domain.lifecycle.transitions import complete, rescue
from shared.store.database import Database
from shared.store.executions.checkpoint_store import MongoCheckpointStore, is_stored_externally
from shared.store.executions.store import MongoExecutionStore
from tests.builders import NOON, TIMINGS, ManualClock, accept_decision, claim_decision


class Bench:
    """An execution store and its checkpoint store."""

    def __init__(self, database: Database) -> None:
        clock = ManualClock()
        self.database = database
        self.store = MongoExecutionStore(database, clock)
        self.checkpoints = MongoCheckpointStore(database, clock)
        self.run: Execution = self.store.create(accept_decision("a", "b"))
        self.run = self.store.save(self.run, claim_decision(self.run, "a")).execution
        self.lease: Lease = self.run.lease_of("a")

    def external_names(self) -> list[str]:
        """Return the names of all externally stored documents."""
        return [document["_id"] for document in self.database.collection("outputs").find()]

    def document(self) -> dict[str, Any]:
        """Return the stored document of the execution."""
        stored = self.database.collection("executions").find_one({"_id": self.run.id})
        assert stored is not None
        return stored

    def lose_worker(self) -> Lease:
        """Let another worker claim the step, and return its lease."""
        now = NOON + TIMINGS.lease
        rescued = rescue(self.run, "a", now, TIMINGS)
        assert rescued is not None
        offered = self.store.save(self.run, rescued).execution
        self.run = self.store.save(offered, claim_decision(offered, "a", "feed", now)).execution
        return self.run.lease_of("a")


@pytest.fixture
def bench(mongodb_url: str) -> Iterator[Bench]:
    with closing(Database(mongodb_url, "test", deadline_s=5)) as database:
        database.ensure_indexes()
        yield Bench(database)


@pytest.mark.parametrize("apart", [False, True])
def test_the_next_claim_reads_the_newest_checkpoint(bench: Bench, *, apart: bool) -> None:
    assert bench.checkpoints.load_newest(bench.lease) is None
    for number in (1, 2, 3):
        assert bench.checkpoints.save(bench.lease, number, b'{"n":%d}' % number, is_external=apart)
    assert bench.checkpoints.load_newest(bench.lease) == b'{"n":3}'
    assert len(bench.external_names()) == (1 if apart else 0), "older ones are gone"
    following = bench.lose_worker()
    assert bench.checkpoints.load_newest(following) == b'{"n":3}'
    assert bench.checkpoints.save(following, 1, b'{"n":4}', is_external=not apart), "a new claim counts from the start"
    assert bench.checkpoints.load_newest(following) == b'{"n":4}'
    assert len(bench.external_names()) == (0 if apart else 1)


@pytest.mark.parametrize("apart", [False, True])
def test_a_stale_lease_stores_nothing(bench: Bench, *, apart: bool) -> None:
    following = bench.lose_worker()
    assert not bench.checkpoints.save(bench.lease, 1, b"{}", is_external=apart)
    assert bench.checkpoints.load_newest(following) is None
    assert bench.external_names() == []


def test_a_checkpoint_changes_neither_version_nor_rev_and_no_reader_loads_it(bench: Bench) -> None:
    assert bench.checkpoints.save(bench.lease, 1, b'{"secret":1}', is_external=False)
    document = bench.document()
    assert (document["version"], document["rev"]) == (bench.run.version, bench.run.rev)
    assert bench.store.load(PUBLIC_INTEGRATOR, bench.run.id) == bench.run
    assert document["checkpoints"]["a"]["json"] == b'{"secret":1}'


@pytest.mark.parametrize("apart", [False, True])
def test_a_checkpoint_written_twice_is_stored_once_and_a_late_write_changes_nothing(
    bench: Bench, *, apart: bool
) -> None:
    for number in (1, 1, 2):
        assert bench.checkpoints.save(bench.lease, number, b'{"n":%d}' % number, is_external=apart)
    assert not bench.checkpoints.save(bench.lease, 1, b'{"n":1}', is_external=apart)
    assert bench.checkpoints.load_newest(bench.lease) == b'{"n":2}'


def test_the_write_that_ends_a_step_deletes_only_its_checkpoint(bench: Bench) -> None:
    bench.checkpoints.save(bench.lease, 1, b"{}", is_external=False)
    done = complete(bench.run, bench.lease, StepOutput("a", b"{}"), NOON, TIMINGS, next_token="feed")
    after = bench.store.save(bench.run, done, lease=bench.lease).execution
    lease_b = after.lease_of("b")
    assert "a" not in bench.document()["checkpoints"]
    bench.checkpoints.save(lease_b, 1, b"{}", is_external=False)
    assert "b" in bench.document()["checkpoints"]


def test_large_ones_are_cleared_and_outputs_are_not(bench: Bench) -> None:
    bench.checkpoints.save(bench.lease, 1, b"{}", is_external=True)
    following = bench.lose_worker()
    done = complete(bench.run, following, StepOutput("a", b"{}", is_external=True), NOON, TIMINGS)
    bench.store.save(bench.run, done, lease=following)
    assert len(bench.external_names()) == 2
    bench.checkpoints.delete_external(PUBLIC_INTEGRATOR, bench.run.id, "a")
    assert bench.external_names() == [f"{bench.run.id}:a:feed"]


def test_all_small_checkpoints_of_an_execution_fit_into_it() -> None:
    one, many = accept_decision("a").execution, accept_decision(*(f"s{number}" for number in range(200))).execution
    assert not is_stored_externally(one, b"x" * 64 * 1024)
    assert is_stored_externally(one, b"x" * (64 * 1024 + 1))
    assert not is_stored_externally(many, b"x" * 5_000)
    assert is_stored_externally(many, b"x" * 6_000)
