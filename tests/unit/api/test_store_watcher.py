"""When an API process believes that MongoDB is away."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.store_watcher import StoreWatcher
from shared.bootstrap import Services
from shared.errors import OutcomeUnknown, Unavailable
from shared.settings import Settings


class Store:
    """A clock that answers or not, as a test says, and the mark that all other calls look at."""

    def __init__(self) -> None:
        self.answers = self.answers_others = True
        self.is_away = self.refuses_to_be_prepared = False
        self.prepared = 0

    def sync(self) -> timedelta:
        if not self.answers:
            raise Unavailable("a test has taken the store away")
        return timedelta(0)

    def now_or_none(self) -> None:
        return None

    def has_answered_since(self, _moment: float) -> bool:
        return self.answers_others

    def prepare(self) -> None:
        if self.refuses_to_be_prepared:
            raise OutcomeUnknown("an index of this name is there already, and another one")
        self.prepared += 1


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def watcher(store: Store) -> StoreWatcher:
    services: Any = SimpleNamespace(settings=Settings(), clock=store, database=store, prepare=store.prepare)
    return StoreWatcher(cast("Services", services))


@pytest.mark.parametrize("busy", [True, False])
def test_a_look_that_is_not_answered_is_an_outage_unless_other_calls_are(
    watcher: StoreWatcher, store: Store, busy: bool
) -> None:
    watcher.check()
    assert not store.is_away
    store.answers, store.answers_others = False, busy
    watcher.check()
    assert store.is_away == (not busy)
    store.answers = True
    watcher.check()
    assert not store.is_away, "the first answer ends it"


def test_the_store_is_prepared_once(watcher: StoreWatcher, store: Store) -> None:
    assert not watcher.is_prepared
    watcher.check()
    watcher.check()
    assert watcher.is_prepared
    assert store.prepared == 1


def test_one_that_refuses_an_index_is_not_away(watcher: StoreWatcher, store: Store) -> None:
    store.refuses_to_be_prepared, store.answers_others = True, False
    watcher.check()
    assert not store.is_away
    assert not watcher.is_prepared
