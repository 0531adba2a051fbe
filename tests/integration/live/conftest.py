"""Gives the tests of ``shared/live`` clients of a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from compose.embedded import places, servers
from compose.embedded.child import Child
from compose.embedded.guard import Guard
from shared.live.connection import connect


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with closing(connect(redis_url)) as client:
        yield client


@pytest.fixture
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A client of a Redis that is not there."""
    with closing(connect(f"unix://{tmp_path_factory.mktemp('nobody') / 'redis.sock'}")) as client:
        yield client


@pytest.fixture
def own_redis(tmp_path: Path, guard: Guard) -> Iterator[tuple[Child, str]]:
    """A redis-server of the test's own, to be taken away."""
    sockets = places.make_socket_dir()
    child = Child(servers.redis_plan(sockets, tmp_path / "redis"), tmp_path / "redis.log", guard)
    child.start()
    child.wait_ready()
    yield child, servers.redis_url(sockets)
    child.kill()
    places.remove_socket_dir(sockets)
