"""Fixtures for the tests of ``shared/``: clients of a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from shared.live.redis_client import connect


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with closing(connect(redis_url)) as client:
        yield client


@pytest.fixture
def absent_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """Yield a client of a Redis that does not exist."""
    with closing(connect(f"unix://{tmp_path_factory.mktemp('nobody') / 'redis.sock'}")) as client:
        yield client
