"""What an API process remembers of how long runs take, as Redis has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.hints.schedule_cache import PRIOR_SCHEDULE, DurationCache
from shared.bootstrap import Services, bootstrap
from shared.clock import boottime_s
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
    key = duration_stats.run_samples_key(run)
    services.redis.hset(key, mapping=dict.fromkeys(range(20), 2_000))
    expectations = DurationCache(services)
    assert expectations.get(key) is PRIOR_SCHEDULE, "no poll waits for it"
    expectations.refresh()
    assert expectations.get(key).sample_size == 20
    assert expectations.get(key).next_delay_s(0) == pytest.approx(2.1, abs=0.05)


def test_what_is_known_outlives_a_redis_that_forgets(services: Services) -> None:
    now = [boottime_s()]
    expectations = DurationCache(services, lambda: now[0])
    services.redis.hset("durations:run:x", mapping=dict.fromkeys(range(20), 2_000))
    expectations.get("durations:run:x")
    expectations.refresh()
    services.redis.flushall()
    now[0] += 60
    expectations.refresh()
    assert expectations.get("durations:run:x").sample_size == 20


def test_a_redis_that_is_away_leaves_what_is_known(nowhere: Services) -> None:
    expectations = DurationCache(nowhere)
    assert expectations.get("durations:run:x") is PRIOR_SCHEDULE
    expectations.refresh()
    assert expectations.get("durations:run:x") is PRIOR_SCHEDULE


def test_what_nobody_asks_for_is_forgotten_and_memory_is_bounded(services: Services) -> None:
    now = [boottime_s()]
    expectations = DurationCache(services, lambda: now[0], entries_max=2)
    for name in ("a", "b", "c"):
        assert expectations.get(f"durations:run:{name}") is PRIOR_SCHEDULE
    assert len(expectations._entries) == 2
    now[0] += 3_600
    expectations.refresh()
    assert len(expectations._entries) == 0
