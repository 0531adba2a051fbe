"""What an API process remembers of how long runs take, as Redis has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.hints.schedule_cache import UNKNOWN, Expectations
from shared.bootstrap import Services, bootstrap
from shared.clock import since_boot
from shared.live import duration_stats
from shared.settings import Settings
from tests.builders import accepted


@pytest.fixture
def services(redis_url: str, mongodb_url: str) -> Iterator[Services]:
    services = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "api")
    services.prepare()
    yield services
    services.redis.close()
    services.database.close()


@pytest.fixture
def nowhere(services: Services) -> Iterator[Services]:
    """Services whose Redis is not there."""
    gone = bootstrap(Settings(redis_url="unix:///nowhere/redis.sock", mongodb_url=services.settings.mongodb_url), "api")
    yield gone
    gone.redis.close()
    gone.database.close()


def test_what_was_asked_for_is_known_soon_after(services: Services) -> None:
    run = accepted("one").execution
    key = duration_stats.run_key(run)
    services.redis.hset(key, mapping=dict.fromkeys(range(20), 2_000))
    expectations = Expectations(services)
    assert expectations.of(key) is UNKNOWN, "no poll waits for it"
    expectations.refresh()
    assert expectations.of(key).runs == 20
    assert expectations.of(key).next_after(0) == pytest.approx(2.1, abs=0.05)


def test_what_is_known_outlives_a_redis_that_forgets(services: Services) -> None:
    now = [since_boot()]
    expectations = Expectations(services, lambda: now[0])
    services.redis.hset("durations:run:x", mapping=dict.fromkeys(range(20), 2_000))
    expectations.of("durations:run:x")
    expectations.refresh()
    services.redis.flushall()
    now[0] += 60
    expectations.refresh()
    assert expectations.of("durations:run:x").runs == 20


def test_a_redis_that_is_away_leaves_what_is_known(nowhere: Services) -> None:
    expectations = Expectations(nowhere)
    assert expectations.of("durations:run:x") is UNKNOWN
    expectations.refresh()
    assert expectations.of("durations:run:x") is UNKNOWN


def test_what_nobody_asks_for_is_forgotten_and_memory_is_bounded(services: Services) -> None:
    now = [since_boot()]
    expectations = Expectations(services, lambda: now[0], remembered_max=2)
    for name in ("a", "b", "c"):
        assert expectations.of(f"durations:run:{name}") is UNKNOWN
    assert len(expectations._known) == 2
    now[0] += 3_600
    expectations.refresh()
    assert len(expectations._known) == 0
