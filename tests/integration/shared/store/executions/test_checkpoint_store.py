"""Checkpoints on a real MongoDB: by the lease, unseen by pollers, and gone with the step."""

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
from tests.builders import NOON, TERMS, HandClock, accepted, claimed


class Bench:
    """A store and the checkpoints beside it."""

    def __init__(self, database: Database) -> None:
        clock = HandClock()
        self.database = database
        self.store = MongoExecutionStore(database, clock)
        self.checkpoints = MongoCheckpointStore(database, clock)
        self.run: Execution = self.store.create(accepted("a", "b"))
        self.run = self.store.save(self.run, claimed(self.run, "a")).execution
        self.lease: Lease = self.run.lease_of("a")

    def large(self) -> list[str]:
        """The names of all that is kept apart."""
        return [found["_id"] for found in self.database.collection("outputs").find()]

    def document(self) -> dict[str, Any]:
        """The execution as stored."""
        found = self.database.collection("executions").find_one({"_id": self.run.id})
        assert found is not None
        return found

    def lose(self) -> Lease:
        """Have another worker claim the step; answer its lease."""
        late = NOON + TERMS.lease
        lost = rescue(self.run, "a", late, TERMS)
        assert lost is not None
        offered = self.store.save(self.run, lost).execution
        self.run = self.store.save(offered, claimed(offered, "a", "feed", late)).execution
        return self.run.lease_of("a")


@pytest.fixture
def bench(mongodb_url: str) -> Iterator[Bench]:
    with closing(Database(mongodb_url, "test", deadline_s=5)) as database:
        database.ensure_indexes()
        yield Bench(database)


@pytest.mark.parametrize("apart", [False, True])
def test_the_newest_is_found_by_whichever_claim_comes_next(bench: Bench, *, apart: bool) -> None:
    assert bench.checkpoints.newest(bench.lease) is None
    for number in (1, 2, 3):
        assert bench.checkpoints.keep(bench.lease, number, b'{"n":%d}' % number, apart=apart)
    assert bench.checkpoints.newest(bench.lease) == b'{"n":3}'
    assert len(bench.large()) == (1 if apart else 0), "those before it are gone"
    following = bench.lose()
    assert bench.checkpoints.newest(following) == b'{"n":3}'
    assert bench.checkpoints.keep(following, 1, b'{"n":4}', apart=not apart), "a new claim counts anew"
    assert bench.checkpoints.newest(following) == b'{"n":4}'
    assert len(bench.large()) == (0 if apart else 1)


@pytest.mark.parametrize("apart", [False, True])
def test_a_stale_lease_keeps_nothing(bench: Bench, *, apart: bool) -> None:
    following = bench.lose()
    assert not bench.checkpoints.keep(bench.lease, 1, b"{}", apart=apart)
    assert bench.checkpoints.newest(following) is None
    assert bench.large() == []


def test_a_checkpoint_moves_neither_version_nor_rev_and_no_reader_loads_it(bench: Bench) -> None:
    assert bench.checkpoints.keep(bench.lease, 1, b'{"secret":1}', apart=False)
    document = bench.document()
    assert (document["version"], document["rev"]) == (bench.run.version, bench.run.rev)
    assert bench.store.load(PUBLIC_INTEGRATOR, bench.run.id) == bench.run
    assert document["checkpoints"]["a"]["json"] == b'{"secret":1}'


@pytest.mark.parametrize("apart", [False, True])
def test_one_written_twice_is_one_and_a_late_ghost_changes_nothing(bench: Bench, *, apart: bool) -> None:
    for number in (1, 1, 2):
        assert bench.checkpoints.keep(bench.lease, number, b'{"n":%d}' % number, apart=apart)
    assert not bench.checkpoints.keep(bench.lease, 1, b'{"n":1}', apart=apart)
    assert bench.checkpoints.newest(bench.lease) == b'{"n":2}'


def test_the_write_that_ends_a_step_takes_its_checkpoint_along_and_no_other(bench: Bench) -> None:
    bench.checkpoints.keep(bench.lease, 1, b"{}", apart=False)
    done = complete(bench.run, bench.lease, StepOutput("a", b"{}"), NOON, TERMS, next_token="feed")
    after = bench.store.save(bench.run, done, lease=bench.lease).execution
    lease_b = after.lease_of("b")
    assert "a" not in bench.document()["checkpoints"]
    bench.checkpoints.keep(lease_b, 1, b"{}", apart=False)
    assert "b" in bench.document()["checkpoints"]


def test_large_ones_are_cleared_and_outputs_are_not(bench: Bench) -> None:
    bench.checkpoints.keep(bench.lease, 1, b"{}", apart=True)
    following = bench.lose()
    done = complete(bench.run, following, StepOutput("a", b"{}", is_external=True), NOON, TERMS)
    bench.store.save(bench.run, done, lease=following)
    assert len(bench.large()) == 2
    bench.checkpoints.clear(PUBLIC_INTEGRATOR, bench.run.id, "a")
    assert bench.large() == [f"{bench.run.id}:a:feed"]


def test_all_small_ones_of_an_execution_find_room_in_it() -> None:
    one, many = accepted("a").execution, accepted(*(f"s{number}" for number in range(200))).execution
    assert not is_stored_externally(one, b"x" * 64 * 1024)
    assert is_stored_externally(one, b"x" * (64 * 1024 + 1))
    assert not is_stored_externally(many, b"x" * 5_000)
    assert is_stored_externally(many, b"x" * 6_000)
