"""The cache of duration samples and poll schedules in an API process, filled from Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.hints.schedule_cache import PRIOR_SCHEDULE, DurationCache
from shared.bootstrap import Services, bootstrap
from shared.clock import boottime_s
from shared.live import duration_stats
from shared.settings import Settings
from tests.builders import accept_decision


@pytest.fixture
def services(redis_url: str, mongodb_url: str) -> Iterator[Services]:
    services = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "api")
    services.prepare()
    yield services
    services.redis.close()
    services.database.close()


@pytest.fixture
def without_redis(services: Services) -> Iterator[Services]:
    """Yield services whose Redis does not exist."""
    services_away = bootstrap(
        Settings(redis_url="unix:///nowhere/redis.sock", mongodb_url=services.settings.mongodb_url), "api"
    )
    yield services_away
    services_away.redis.close()
    services_away.database.close()


def test_a_requested_schedule_is_cached_soon_after(services: Services) -> None:
    run = accept_decision("one").execution
    key = duration_stats.run_samples_key(run)
    services.redis.hset(key, mapping=dict.fromkeys(range(20), 2_000))
    cache = DurationCache(services)
    assert cache.get(key) is PRIOR_SCHEDULE, "no poll waits for it"
    cache.refresh()
    assert cache.get(key).sample_size == 20
    assert cache.get(key).next_delay_s(0) == pytest.approx(2.1, abs=0.05)


def test_cached_samples_survive_a_flush_of_redis(services: Services) -> None:
    clock = [boottime_s()]
    cache = DurationCache(services, lambda: clock[0])
    services.redis.hset("durations:run:x", mapping=dict.fromkeys(range(20), 2_000))
    cache.get("durations:run:x")
    cache.refresh()
    services.redis.flushall()
    clock[0] += 60
    cache.refresh()
    assert cache.get("durations:run:x").sample_size == 20


def test_cached_samples_stay_while_redis_is_away(without_redis: Services) -> None:
    cache = DurationCache(without_redis)
    assert cache.get("durations:run:x") is PRIOR_SCHEDULE
    cache.refresh()
    assert cache.get("durations:run:x") is PRIOR_SCHEDULE


def test_unused_schedules_are_dropped_and_memory_is_bounded(services: Services) -> None:
    clock = [boottime_s()]
    cache = DurationCache(services, lambda: clock[0], entries_max=2)
    for name in ("a", "b", "c"):
        assert cache.get(f"durations:run:{name}") is PRIOR_SCHEDULE
    assert len(cache._entries) == 2
    clock[0] += 3_600
    cache.refresh()
    assert len(cache._entries) == 0
