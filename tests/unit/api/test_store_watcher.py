"""When an API process decides that MongoDB is away."""

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
    """A fake clock and database: it replies or not, as a test says, and has the flag that all other calls check."""

    def __init__(self) -> None:
        self.responds = self.others_respond = True
        self.is_away = self.fails_to_prepare = False
        self.prepared = 0

    def sync(self) -> timedelta:
        if not self.responds:
            raise Unavailable("a test has taken the store away")
        return timedelta(0)

    def now_or_none(self) -> None:
        return None

    def has_replied_since(self, _moment: float) -> bool:
        return self.others_respond

    def prepare(self) -> None:
        if self.fails_to_prepare:
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
def test_a_check_without_a_reply_is_an_outage_unless_other_calls_get_replies(
    watcher: StoreWatcher, store: Store, busy: bool
) -> None:
    watcher.check()
    assert not store.is_away
    store.responds, store.others_respond = False, busy
    watcher.check()
    assert store.is_away == (not busy)
    store.responds = True
    watcher.check()
    assert not store.is_away, "the first reply ends it"


def test_the_store_is_prepared_once(watcher: StoreWatcher, store: Store) -> None:
    assert not watcher.is_prepared
    watcher.check()
    watcher.check()
    assert watcher.is_prepared
    assert store.prepared == 1


def test_a_store_that_refuses_an_index_is_not_away(watcher: StoreWatcher, store: Store) -> None:
    store.fails_to_prepare, store.others_respond = True, False
    watcher.check()
    assert not store.is_away
    assert not watcher.is_prepared
