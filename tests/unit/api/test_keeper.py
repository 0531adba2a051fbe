"""When the keeper believes that MongoDB is away."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.keeper import Keeper
from shared.bootstrap import Services
from shared.errors import Unavailable
from shared.settings import Settings


class Store:
    """A clock that answers or not, as a test says, and the mark that all other calls look at."""

    def __init__(self) -> None:
        self.answers = True
        self.is_away = False
        self.prepared = 0

    def sync(self) -> timedelta:
        if not self.answers:
            raise Unavailable("a test has taken the store away")
        return timedelta(0)

    def glance(self) -> None:
        return None

    def prepare(self) -> None:
        self.prepared += 1


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def keeper(store: Store) -> Keeper:
    services: Any = SimpleNamespace(settings=Settings(), clock=store, database=store, prepare=store.prepare)
    return Keeper(cast("Services", services))


def test_one_look_that_is_not_answered_refuses_nobody_and_two_in_a_row_are_an_outage(
    keeper: Keeper, store: Store
) -> None:
    for answers, away in [(True, False), (False, False), (True, False), (False, False), (False, True), (False, True)]:
        store.answers = answers
        keeper.look_at_store()
        assert store.is_away == away
    store.answers = True
    keeper.look_at_store()
    assert not store.is_away, "the first answer ends it"


def test_the_store_is_prepared_once(keeper: Keeper, store: Store) -> None:
    assert not keeper.is_prepared
    keeper.look_at_store()
    keeper.look_at_store()
    assert keeper.is_prepared
    assert store.prepared == 1
