"""What is remembered of baskets ends: a deletion of which no process heard is not run against for ever."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from api import known_baskets
from api.known_baskets import REMEMBERED_S, KnownBaskets
from shared.catalogue.specs import load_catalogue
from shared.errors import BasketNotFound
from shared.live.pulse import Look

NAME = "mine"


class Bench:
    """A process that remembers, the baskets that there are, and a clock in hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.mark, self.redis_is_away = 100.0, None, False
        self.slept: list[float] = []
        self.baskets: dict[str, dict[str, Any]] = {
            NAME: {"name": NAME, "agents": ["simulate"], "execution_strategy": "sequential"}
        }
        monkeypatch.setattr(known_baskets, "since_boot", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.slept.append)
        services: Any = SimpleNamespace(catalogue=load_catalogue(), baskets=self, redis=self)
        self.known = KnownBaskets(services, self)  # type: ignore[arg-type]

    @property
    def last(self) -> Look:
        return Look(connected=True, baskets_mark=self.mark, at=self.now)

    def get(self, integrator: str, name: str) -> dict[str, Any]:
        if name not in self.baskets:
            raise BasketNotFound(integrator)
        return self.baskets[name]

    def set(self, key: str, token: str) -> None:
        if self.redis_is_away:
            raise redis.ConnectionError(key)
        self.mark = token.encode()  # type: ignore[assignment]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(monkeypatch)
    bench.known.get(NAME)
    return bench


def test_a_deletion_that_redis_was_not_told_of_is_answered_once_nobody_can_remember(bench: Bench) -> None:
    bench.baskets.clear()
    bench.redis_is_away = True
    bench.known.tell_deleted()
    bench.now += sum(bench.slept)
    with pytest.raises(BasketNotFound):
        bench.known.get(NAME)


def test_a_redis_that_forgets_the_mark_brings_no_deleted_basket_back(bench: Bench) -> None:
    bench.baskets.clear()
    bench.known.tell_deleted()
    bench.now += REMEMBERED_S
    bench.mark = None
    with pytest.raises(BasketNotFound):
        bench.known.get(NAME)


def test_a_deletion_whose_process_died_before_it_told_is_found_out(bench: Bench) -> None:
    bench.baskets.clear()
    bench.now += REMEMBERED_S
    with pytest.raises(BasketNotFound):
        bench.known.get(NAME)


def test_a_basket_is_not_asked_for_again_at_once(bench: Bench) -> None:
    bench.baskets.clear()
    bench.now += REMEMBERED_S / 2
    assert bench.known.get(NAME).name == NAME
