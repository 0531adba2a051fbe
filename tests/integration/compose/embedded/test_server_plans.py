"""The embedded servers are real, reachable by their URLs only, and empty for each test."""

from __future__ import annotations

import shutil
import stat
import time
from contextlib import closing
from pathlib import Path

import pymongo
import pytest
import redis

from compose.embedded import server_plans as embedded
from compose.embedded import socket_dir
from compose.embedded.managed_process import Child
from tests.conftest import Servers
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _quiet_redis(servers: Servers) -> None:
    """Wait until nothing writes any more: a process of the test file before may just be ending."""
    with closing(redis.Redis.from_url(servers.redis_url)) as client:

        def is_quiet() -> bool:
            client.flushall()
            time.sleep(0.3)  # nothing may happen in this time, so there is no condition to wait for
            return bool(client.dbsize() == 0)

        wait_until(is_quiet, 20, "nothing writes to Redis")


def test_redis_is_empty_and_evicts_only_keys_with_an_expiry(redis_url: str) -> None:
    with closing(redis.Redis.from_url(redis_url)) as client:
        assert client.dbsize() == 0
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "volatile-ttl"
        assert client.config_get("port")["port"] == "0"
        client.set("left", "behind")


def test_redis_is_empty_again_after_a_test_that_wrote(redis_url: str) -> None:
    with closing(redis.Redis.from_url(redis_url)) as client:
        assert client.dbsize() == 0


def test_mongod_supports_majority_writes_and_transactions(mongodb_url: str) -> None:
    with pymongo.MongoClient[dict[str, object]](mongodb_url, w="majority", journal=True) as client:
        runs = client.get_default_database()["runs"]
        runs.insert_one({"_id": 0})
        with client.start_session() as session, session.start_transaction():
            runs.insert_one({"_id": 1}, session=session)
        assert runs.count_documents({}) == 2


def test_the_sockets_are_in_a_private_directory_with_a_short_path(tmp_path: Path) -> None:
    directory = socket_dir.make_socket_dir()
    try:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert len(str(directory / "mongodb-27017.sock")) < 108
    finally:
        socket_dir.remove_socket_dir(directory)
    assert not directory.exists()


def test_mongod_keeps_its_data_after_a_kill_and_a_move_of_its_sockets(tmp_path: Path) -> None:
    for start in range(2):
        sockets = socket_dir.make_socket_dir()
        child = Child(embedded.mongod_plan(sockets, tmp_path / "data"), tmp_path / "log")
        try:
            child.start()
            child.wait_ready()
            with pymongo.MongoClient[dict[str, object]](embedded.mongodb_url(sockets), w="majority") as client:
                runs = client.get_default_database()["runs"]
                assert runs.count_documents({}) == start
                runs.insert_one({"_id": start})
        finally:
            child.kill()
            shutil.rmtree(sockets)
