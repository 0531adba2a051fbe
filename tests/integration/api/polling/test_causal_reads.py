"""No poll goes back, and none is 404, where a primary just elected does not know yet what a majority has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from pymongo import WriteConcern
from pymongo.collection import Collection

from api.app import Components, build_components
from api.polling.poll_many import PollManyHandler, _PollManyResult
from shared.bootstrap import Services, bootstrap
from shared.live.render import parse_header
from shared.settings import Settings
from shared.store.executions.store import new_document
from tests.builders import accepted


@pytest.fixture
def services(redis_url: str, mongodb_url: str) -> Iterator[Services]:
    made = bootstrap(replace(Settings(), redis_url=redis_url, mongodb_url=mongodb_url), "api")
    with closing(made.database), closing(made.redis):
        yield made


@pytest.fixture
def parts(services: Services) -> Iterator[Components]:
    built = build_components(services)
    built.monitor.start()
    yield built
    built.background.stop()


@pytest.fixture
def at_once(services: Services) -> Collection[dict[str, object]]:
    """Writes that the primary has, and a majority a moment later."""
    return services.database.collection("executions").with_options(write_concern=WriteConcern(w=1))


def test_a_run_that_the_primary_has_is_never_unknown(parts: Components, at_once: Collection[dict[str, object]]) -> None:
    for _ in range(10):
        run = accepted()
        at_once.insert_one(new_document(run, {}))
        assert parts.reader.read(run.execution.id).execution.id == run.execution.id


def test_a_poll_is_never_of_before_what_its_caller_has_seen(
    services: Services, parts: Components, at_once: Collection[dict[str, object]]
) -> None:
    run = services.store.create(accepted())
    for rev in range(2, 12):
        at_once.update_one({"_id": run.id}, {"$set": {"rev": rev}})
        assert parse_header(parts.poller._fetch_view(run.id, min_rev=rev).view).rev == rev


def test_a_part_of_a_poll_is_of_no_other_revision_than_the_whole(
    services: Services, parts: Components, at_once: Collection[dict[str, object]]
) -> None:
    run = services.store.create(accepted())
    for rev in range(2, 12):
        at_once.update_one({"_id": run.id}, {"$set": {"rev": rev}})
        assert parts.reader.read(run.id, min_rev=rev).execution.rev == rev


def test_a_poll_of_many_neither_misses_nor_goes_back(
    services: Services, at_once: Collection[dict[str, object]]
) -> None:
    parts = build_components(services)
    many = PollManyHandler(services, parts.monitor, parts.reader, parts.view_hints)
    run = services.store.create(accepted())
    for rev in range(2, 12):
        new = accepted()
        at_once.insert_one(new_document(new, {}))
        at_once.update_one({"_id": run.id}, {"$set": {"rev": rev}})
        found = _PollManyResult([])
        many._compare_in_store(found, {run.id: rev, new.execution.id: None}, is_full=False)
        assert (found.not_found, found.unchanged, len(found.changed)) == ([], 1, 1)
