"""What ``bucketd doctor`` and the start say of real servers that cannot serve Bucket, or should be changed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from compose import mongodb_checks, redis_checks
from compose.embedded import server_plans, socket_dir
from compose.embedded.group_reaper import GroupReaper
from compose.embedded.managed_process import Child
from compose.mongodb_checks import check_mongodb
from compose.operator_error import OperatorError
from compose.redis_checks import check_redis
from compose.server_report import warnings_of_known_holes
from shared.live.redis_client import connect
from shared.live.redis_monitor import RedisMonitor
from tests.waiting import wait_until


@pytest.fixture
def own_client(own_redis: tuple[Child, str]) -> Iterator[redis.Redis]:
    with closing(connect(own_redis[1])) as client:
        yield client


@pytest.fixture
def loopback_ports() -> list[int]:
    """Return two free ports."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return [int(listener.getsockname()[1]) for listener in (first, second)]


def test_the_embedded_valkey_is_named_by_its_own_version_and_has_nothing_to_warn_of(redis_url: str) -> None:
    report = check_redis(redis_url)
    assert report.version.startswith("Valkey 9.")
    assert report.warnings == ()


@pytest.mark.parametrize(
    ("facts", "named"),
    [  # from INFO of these servers, or HELLO where INFO is refused
        ({"redis_version": "8.6.6"}, ("Redis", "8.6.6")),
        ({"redis_version": "7.2.4", "redict_version": "7.3.6"}, ("Redict", "7.3.6")),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.0.1"}, ("Valkey", "8.0.1")),
        ({"server": "valkey", "version": "9.1.2"}, ("Valkey", "9.1.2")),
        ({"server": "redis", "version": "7.0.15"}, ("Redis", "7.0.15")),
    ],
)
def test_forks_are_named_by_their_own_version(facts: dict[str, str], named: tuple[str, str]) -> None:
    assert redis_checks._name_and_version(facts) == named


@pytest.mark.parametrize(
    ("server", "version", "warned"),
    [
        ("Redis", "7.0.15", True),
        ("Redis", "8.6.2", True),
        ("Redis", "8.6.3", False),
        ("Redis", "9.0.0", False),
        ("Valkey", "8.0.1", True),
        ("Valkey", "8.0.6", False),
        ("Valkey", "9.1.2", False),
    ],
)
def test_versions_with_known_holes_are_warned_of(server: str, version: str, warned: bool) -> None:
    assert bool(warnings_of_known_holes(server, version, redis_checks._FIXED[server])) is warned


def test_a_replica_is_refused(own_redis: tuple[Child, str], own_client: redis.Redis) -> None:
    own_client.replicaof("127.0.0.1", "1")
    with pytest.raises(OperatorError, match="read-only replica"):
        check_redis(own_redis[1])


def test_cluster_mode_is_refused_by_the_check_and_by_the_monitor(
    tmp_path: Path, loopback_ports: list[int], group_reaper: GroupReaper
) -> None:
    port, cluster_port = map(str, loopback_ports)
    sockets = socket_dir.make_socket_dir()
    plan = server_plans.redis_plan(sockets, tmp_path / "redis")
    plan = replace(plan, argv=(*plan.argv, "--port", port, "--cluster-port", cluster_port, "--cluster-enabled", "yes"))
    child = Child(plan, tmp_path / "redis.log", group_reaper)
    url = server_plans.redis_url(sockets)
    try:
        child.start()
        child.wait_ready()
        with closing(connect(url)) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"), what="it serves")
        with pytest.raises(OperatorError, match="cluster mode"):
            check_redis(url)
        assert not RedisMonitor(url).take_snapshot().is_connected
    finally:
        child.kill()
        socket_dir.remove_socket_dir(sockets)


def test_a_full_redis_is_refused_and_another_policy_is_warned_of(
    own_redis: tuple[Child, str], own_client: redis.Redis
) -> None:
    own_client.config_set("maxmemory-policy", "allkeys-lru")
    [warning] = check_redis(own_redis[1]).warnings
    assert warning.startswith("maxmemory-policy is allkeys-lru: it evicts messages too")
    own_client.config_set("maxmemory-policy", "noeviction")
    [warning] = check_redis(own_redis[1]).warnings
    assert "once it is full, runs are refused" in warning
    own_client.config_set("maxmemory", "1")
    with pytest.raises(OperatorError, match="refuses writes") as caught:
        check_redis(own_redis[1])
    assert "maxmemory" in caught.value.fix


def test_rights_are_tried_and_a_refused_info_is_an_answer(
    own_redis: tuple[Child, str], own_client: redis.Redis
) -> None:
    def warnings_of_user(*rules: str) -> tuple[str, ...]:
        own_client.execute_command("ACL", "SETUSER", "lean", "reset", "on", ">secret", *rules)
        return check_redis(own_redis[1].replace("unix://", "unix://lean:secret@")).warnings

    own_client.set("default", "not a list")
    assert warnings_of_user("~*", "&*", "+@all") == ()
    [no_info] = warnings_of_user("~*", "&*", "+@all", "-@dangerous")
    assert "INFO is refused" in no_info
    no_keys, no_channel, no_scripts = warnings_of_user("~write-check", "~default*", "+@all", "-@scripting")
    assert "long, _kombu.binding.default, execution:doctor, " in no_keys
    assert " default," not in no_keys
    assert "grant &wakes" in no_channel
    assert "grant +eval" in no_scripts
    assert own_client.get("default") == b"not a list", "nothing was changed"


def test_production_without_a_password_is_warned_of(own_redis: tuple[Child, str], mongodb_url: str) -> None:
    assert check_redis(own_redis[1], is_production=True).warnings == (), "only its user reaches a socket"
    assert not redis_checks.has_password("redis://redis.example:6379/0")
    assert redis_checks.has_password("redis://:secret@redis.example:6379/0")
    assert any("no password" in warning for warning in check_mongodb(mongodb_url, is_production=True).warnings)
    assert not any("no password" in warning for warning in check_mongodb(mongodb_url).warnings)


@pytest.fixture
def mongod(
    tmp_path: Path, loopback_ports: list[int], group_reaper: GroupReaper, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, str]]:
    """Yield the socket of a mongod that belongs to a replica set and was not initiated, and its URL on loopback."""
    monkeypatch.setattr(mongodb_checks, "_TIMEOUT_S", 0.5)
    port = loopback_ports[0]
    sockets = socket_dir.make_socket_dir()
    path = sockets / "mongod.sock"
    plan = server_plans.mongod_plan(sockets, tmp_path / "mongod")
    argv = [f"127.0.0.1,{path}" if argument == str(path) else argument for argument in plan.argv]

    def listens() -> bool:
        with socket.create_connection(("127.0.0.1", port)):
            return True

    plan = replace(plan, argv=(*argv, "--port", str(port)), ready=listens)
    child = Child(plan, tmp_path / "mongod.log", group_reaper)
    try:
        child.start()
        child.wait_ready()
        yield path, f"mongodb://127.0.0.1:{port}/bucket"
    finally:
        child.kill()
        socket_dir.remove_socket_dir(sockets)


def test_a_replica_set_that_was_not_initiated_and_one_whose_names_lead_nowhere(mongod: tuple[Path, str]) -> None:
    path, url = mongod
    for tried in (url, f"{url}?replicaSet=bucket", f"{url}?directConnection=true"):
        with pytest.raises(OperatorError, match="not initiated yet") as caught:
            check_mongodb(tried)
        assert "--eval 'rs.initiate()'" in caught.value.fix

    while not server_plans._is_writable_primary(path):
        pass
    hidden = path.rename(path.with_name("hidden"))
    with pytest.raises(OperatorError, match="cannot reach") as caught:
        check_mongodb(url)
    assert str(path) in caught.value.message
    assert "directConnection=true" in caught.value.fix
    assert check_mongodb(f"{url}?directConnection=true").version.startswith("6.0.")
    hidden.rename(path)


def test_a_mongodb_that_is_no_replica_set_or_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongodb_checks, "_TIMEOUT_S", 0.2)
    with pytest.raises(OperatorError, match="does not reply"):
        check_mongodb("mongodb://127.0.0.1:1/bucket")
    fix = mongodb_checks._no_replica_set({}, "mongodb://bucket:secret@db.example/bucket").fix
    assert "mongosh 'mongodb://db.example/bucket'" in fix
