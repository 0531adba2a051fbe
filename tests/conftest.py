"""Fixtures of all tests: a real redis-server and a real mongod on unix sockets, started once a session."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pymongo
import pytest
import redis
import structlog
from hypothesis import settings as hypothesis_settings

from compose.embedded import server_plans as embedded
from compose.embedded import socket_dir
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.embedded.process_plan import ChildPlan
from shared.telemetry import logging_setup
from tests.stack import Stack
from tests.stall_watch import RepeatAfterStall

# By default an example that takes longer than 200 ms fails, but a pause of the machine is no fault of the tested code.
hypothesis_settings.register_profile("bucket", deadline=None)
hypothesis_settings.load_profile("bucket")

# A disk that other programs keep busy can hold up a journalled write for longer than the API waits; a submit is then
# rightly answered with 503: temporary files, also those of the servers, are kept in memory where there is room.
_MEMORY_DIR: Final = Path("/dev/shm")  # noqa: S108 -- the private directories below it are made by pytest
_MEMORY_MIN_BYTES: Final = 4 * 1024**3
if _MEMORY_DIR.is_dir() and shutil.disk_usage(_MEMORY_DIR).free > _MEMORY_MIN_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY_DIR))


_REPEAT_AFTER_STALL: Final = RepeatAfterStall()


def pytest_configure(config: pytest.Config) -> None:
    """Run a test that failed during a stall of the machine once more."""
    config.pluginmanager.register(_REPEAT_AFTER_STALL)


@dataclass(frozen=True, slots=True)
class Servers:
    """A real Redis and a real MongoDB; ``sockets`` is the private directory that they listen in."""

    sockets: Path

    @property
    def redis_url(self) -> str:
        """Return the URL of the one Redis database; the fixture ``redis_url`` empties it first."""
        return embedded.redis_url(self.sockets)

    def mongodb_url(self, database: str) -> str:
        """Return the URL of one MongoDB database; the fixture ``mongodb_url`` gives a fresh one."""
        return embedded.mongodb_url(self.sockets, database)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove every setting of Bucket from the environment, so that a developer's shell changes no test."""
    for name in list(os.environ):
        if name.startswith("BUCKET_") or name in {"HOST", "PORT", "REDIS_URL", "MONGODB_URL"}:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Reset structlog and the root logger after each test: one test would hide or print the lines of another."""
    root = logging.getLogger()
    level = root.level
    yield
    structlog.reset_defaults()
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if type(handler).__module__ != logging_setup.__name__]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, group_reaper: GroupReaper) -> Iterator[Servers]:
    """Start redis-server and mongod for the session and stop them, by their process ids, at its end."""
    data = tmp_path_factory.mktemp("servers")
    sockets = socket_dir.make_socket_dir()
    plans = (embedded.redis_plan(sockets, data / "redis"), embedded.mongod_plan(sockets, data / "mongod"))
    with _running(plans, data, group_reaper):
        running = Servers(sockets)
        _REPEAT_AFTER_STALL.watch.watch_store(running.mongodb_url("admin"))
        yield running
        _REPEAT_AFTER_STALL.watch.watch_store(None)
    socket_dir.remove_socket_dir(sockets)


@contextmanager
def _running(plans: tuple[ChildPlan, ...], logs: Path, group_reaper: GroupReaper) -> Iterator[list[Child]]:
    children = [Child(plan, logs / f"{plan.name}.log", group_reaper) for plan in plans]
    try:
        for child in children:
            child.start()
        for child in children:
            child.wait_ready()
        yield children
    finally:
        for child in children:
            child.kill()  # their data is in a temporary directory, so a graceful end is not needed


@pytest.fixture
def own_redis(tmp_path: Path, group_reaper: GroupReaper) -> Iterator[tuple[Child, str]]:
    """Start a redis-server for this test, which it may stop; yield its process and its URL."""
    sockets = socket_dir.make_socket_dir()
    plan = embedded.redis_plan(sockets, tmp_path / "redis")
    with _running((plan,), tmp_path, group_reaper) as [child]:
        yield child, embedded.redis_url(sockets)
    socket_dir.remove_socket_dir(sockets)


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """Return the URL of a real Redis that is empty."""
    with closing(redis.Redis.from_url(servers.redis_url)) as client:
        client.flushall()
    return servers.redis_url


@pytest.fixture
def mongodb_url(servers: Servers) -> Iterator[str]:
    """Yield the URL of a fresh database on a real MongoDB; it is dropped after the test."""
    database = f"test_{uuid.uuid4().hex[:12]}"
    url = servers.mongodb_url(database)
    yield url
    with pymongo.MongoClient[dict[str, object]](url) as client:
        client.drop_database(database)


@pytest.fixture(scope="session")
def group_reaper() -> Iterator[GroupReaper]:
    """Yield the group reaper, which ends the processes of the tests if the tests themselves are killed."""
    with GroupReaper() as group_reaper:
        yield group_reaper


@pytest.fixture(scope="module")
def make_stack(tmp_path_factory: pytest.TempPathFactory, group_reaper: GroupReaper) -> Iterator[Callable[..., Stack]]:
    """Yield a function that starts a whole stack with the given settings; the stacks end with the module."""
    stacks: list[Stack] = []

    def make(**settings: str) -> Stack:
        stack = Stack(tmp_path_factory.mktemp("stack"), group_reaper, **settings)
        stacks.append(stack)
        stack.start_all()
        return stack

    yield make
    for stack in stacks:
        stack.close()


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    """Return a whole real stack, one for each test module; see :mod:`tests.stack`."""
    return make_stack()
