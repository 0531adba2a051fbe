"""No poll shows an older revision than one before: of a new primary that lags, or of a view in Redis that is late."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from pymongo import WriteConcern
from pymongo.collection import Collection

from api.hints.poll_hints import ViewHints
from api.hints.schedule_cache import DurationCache
from api.http.long_poll import LongPoller
from api.polling.execution_reader import ExecutionReader
from api.polling.poll_handler import PollHandler
from api.polling.poll_many import PollManyHandler, _PollManyResult
from shared.bootstrap import Services, bootstrap
from shared.errors import Unavailable
from shared.live.redis_monitor import RedisMonitor
from shared.live.render import parse_header
from shared.settings import Settings
from shared.store.database import Database
from shared.store.executions.documents import new_document
from shared.store.executions.store import MongoExecutionStore
from tests.builders import accept_decision


@pytest.fixture
def services(redis_url: str, mongodb_url: str) -> Iterator[Services]:
    built = bootstrap(replace(Settings(), redis_url=redis_url, mongodb_url=mongodb_url), "api")
    with closing(built.database), closing(built.redis):
        yield built


@pytest.fixture
def monitor(services: Services) -> Iterator[RedisMonitor]:
    built = RedisMonitor(services.settings.redis_url, services.clock.now_or_none)
    built.start()
    yield built
    built.stop()


@pytest.fixture
def reader(services: Services, monitor: RedisMonitor) -> ExecutionReader:
    return ExecutionReader(services, monitor)


@pytest.fixture
def view_hints(services: Services, monitor: RedisMonitor) -> ViewHints:
    return ViewHints(services.clock, monitor, DurationCache(services))


@pytest.fixture
def unconfirmed_writes(services: Services) -> Collection[dict[str, object]]:
    """The executions, with writes that only the primary has confirmed (``w=1``)."""
    return services.database.collection("executions").with_options(write_concern=WriteConcern(w=1))


def test_a_run_that_the_primary_has_is_never_unknown(
    reader: ExecutionReader, unconfirmed_writes: Collection[dict[str, object]]
) -> None:
    for _ in range(10):
        run = accept_decision()
        unconfirmed_writes.insert_one(new_document(run, {}))
        assert reader.read(run.execution.integrator, run.execution.id).execution.id == run.execution.id


def test_a_poll_is_never_older_than_its_caller_has_seen(
    services: Services,
    monitor: RedisMonitor,
    reader: ExecutionReader,
    view_hints: ViewHints,
    unconfirmed_writes: Collection[dict[str, object]],
) -> None:
    poller = PollHandler(services, reader, view_hints, LongPoller(services.settings, monitor))
    run = services.store.create(accept_decision())
    for rev in range(2, 12):
        unconfirmed_writes.update_one({"_id": run.id}, {"$set": {"rev": rev}})
        assert parse_header(poller._fetch_view(run.integrator, run.id, min_rev=rev).view).rev == rev


def test_a_read_of_a_part_is_never_older_than_its_caller_has_seen(
    services: Services, reader: ExecutionReader, unconfirmed_writes: Collection[dict[str, object]]
) -> None:
    run = services.store.create(accept_decision())
    for rev in range(2, 12):
        unconfirmed_writes.update_one({"_id": run.id}, {"$set": {"rev": rev}})
        assert reader.read(run.integrator, run.id, min_rev=rev).execution.rev == rev


def test_no_poll_shows_an_older_view_after_one_that_read_the_store(
    services: Services, monitor: RedisMonitor, reader: ExecutionReader, view_hints: ViewHints
) -> None:
    poller = PollHandler(services, reader, view_hints, LongPoller(services.settings, monitor))
    accepted = accept_decision()
    run = services.store.create(accepted)
    services.publisher.publish_accepted([accepted])  # a worker was killed before it published the later revision
    services.database.collection("executions").update_one({"_id": run.id}, {"$set": {"rev": 4}})
    polls = [poller._fetch_view(run.integrator, run.id, rev) for rev in (0, 4, 0)]
    assert [parse_header(poll.view).rev for poll in polls] == [1, 4, 4]


def test_after_a_pause_since_its_read_a_view_is_not_stored_but_an_older_one_deleted(
    services: Services, monitor: RedisMonitor, reader: ExecutionReader, view_hints: ViewHints
) -> None:
    suspended = PollHandler(services, reader, view_hints, LongPoller(services.settings, monitor), view_age_max_s=0.0)
    accepted = accept_decision()
    run = services.store.create(accepted)
    services.publisher.publish_accepted([accepted])
    services.database.collection("executions").update_one({"_id": run.id}, {"$set": {"rev": 4}})
    assert parse_header(suspended._fetch_view(run.integrator, run.id, min_rev=4).view).rev == 4
    assert services.views.get(run.integrator, run.id) is None


def test_the_first_read_from_a_primary_waits_until_a_majority_has_what_it_has(
    mongodb_url: str, services: Services, unconfirmed_writes: Collection[dict[str, object]]
) -> None:
    """As after an election; a connection that is new has seen none."""
    run = services.store.create(accept_decision())
    for rev in range(2, 12):
        with closing(Database(mongodb_url, "api", 5.0)) as database:
            database.collection("executions").find_one({})
            unconfirmed_writes.update_one({"_id": run.id}, {"$set": {"rev": rev}})
            record = MongoExecutionStore(database, services.clock).read(run.integrator, run.id)
        assert record is not None
        assert record.execution.rev == rev


class ElectingDatabase(Database):
    """A database that hears of an election whenever it is asked for the newest."""

    elections = 0

    def _election(self) -> object:
        self.elections += 1
        return self.elections


def test_a_read_during_which_a_primary_was_elected_is_unavailable(mongodb_url: str, services: Services) -> None:
    run = services.store.create(accept_decision())
    with closing(ElectingDatabase(mongodb_url, "api", 5.0)) as database:
        store = MongoExecutionStore(database, services.clock)
        assert store.read(run.integrator, run.id) is not None, "causally"
        database._caught_up_with = database.elections + 1
        with pytest.raises(Unavailable):
            store.read(run.integrator, run.id)


def test_a_poll_of_many_misses_no_run_and_never_goes_back(
    services: Services,
    monitor: RedisMonitor,
    reader: ExecutionReader,
    view_hints: ViewHints,
    unconfirmed_writes: Collection[dict[str, object]],
) -> None:
    many = PollManyHandler(services, monitor, reader, view_hints)
    run = services.store.create(accept_decision())
    for rev in range(2, 12):
        new = accept_decision()
        unconfirmed_writes.insert_one(new_document(new, {}))
        unconfirmed_writes.update_one({"_id": run.id}, {"$set": {"rev": rev}})
        result = _PollManyResult([])
        many._compare_in_store(run.integrator, result, {run.id: rev, new.execution.id: None}, is_full=False)
        assert (result.not_found, result.unchanged_count, len(result.changed)) == ([], 1, 1)
