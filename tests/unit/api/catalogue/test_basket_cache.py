"""Basket cache: a basket is read again after two seconds, and at once by the process that deleted it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from api.catalogue import basket_cache
from api.catalogue.basket_cache import CACHED_S, BasketCache
from shared.catalogue.agent_catalogue import load_catalogue
from shared.errors import BasketNotFound
from shared.store.basket_store import StoredBasket

OWNER, NAME = "acme", "mine"


class CachingProcess:
    """One process's cache, the stored baskets, and a clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.after_read: Callable[[], None] = lambda: None
        self.baskets: dict[str, dict[str, Any]] = {
            NAME: {"name": NAME, "agents": ["simulate"], "execution_strategy": "sequential"}
        }
        monkeypatch.setattr(basket_cache, "boottime_s", lambda: self.now)
        services: Any = SimpleNamespace(catalogue=load_catalogue(), baskets=self)
        self.cache = BasketCache(services)

    def get(self, integrator: str, name: str) -> StoredBasket:
        if name not in self.baskets:
            raise BasketNotFound(integrator)
        found = self.baskets[name]
        self.after_read()
        return StoredBasket(integrator, found)

    def delete(self) -> None:
        self.baskets.clear()
        self.cache.forget(NAME)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> CachingProcess:
    return CachingProcess(monkeypatch)


def test_a_basket_is_not_read_again_within_two_seconds(process: CachingProcess) -> None:
    process.cache.get(OWNER, NAME)
    process.baskets.clear()
    process.now += CACHED_S * 0.9
    assert process.cache.get(OWNER, NAME).graph.name == NAME


def test_a_basket_that_another_process_deleted_is_gone_after_two_seconds(process: CachingProcess) -> None:
    process.cache.get(OWNER, NAME)
    process.baskets.clear()
    process.now += CACHED_S
    with pytest.raises(BasketNotFound):
        process.cache.get(OWNER, NAME)


def test_the_process_that_deletes_a_basket_forgets_it_at_once(process: CachingProcess) -> None:
    process.cache.get(OWNER, NAME)
    process.delete()
    with pytest.raises(BasketNotFound):
        process.cache.get(OWNER, NAME)


def test_a_basket_that_is_deleted_while_it_is_read_is_not_cached(process: CachingProcess) -> None:
    process.after_read = process.delete
    process.cache.get(OWNER, NAME)
    with pytest.raises(BasketNotFound):
        process.cache.get(OWNER, NAME)
