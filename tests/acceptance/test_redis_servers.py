"""Redis over TLS, and a Redis that refuses writes: a replica, a full one, one that grants no rights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from compose.embedded.group_reaper import GroupReaper
from tests.api_client import AGENTS, EVERY_PROCESS, RunClient, send_in_parallel
from tests.stack import Stack
from tests.tls_proxy import Authority, TlsProxy
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def proxy(authority: Authority) -> Iterator[TlsProxy]:
    with TlsProxy(authority) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, group_reaper: GroupReaper, proxy: TlsProxy, authority: Authority
) -> Iterator[Stack]:
    """Yield a stack whose processes reach Redis by TLS alone; they know the authority from the environment."""
    url = f"rediss://localhost:{proxy.port}/0"
    trust = {"REDIS_URL": url, "SSL_CERT_FILE": str(authority.certificate), "BUCKET_AGENTS_DIR": str(AGENTS)}
    stack = Stack(tmp_path_factory.mktemp("tls-stack"), group_reaper, **trust)
    proxy.target = stack.sockets / "redis.sock"
    try:
        stack.start_all()
        yield stack
    finally:
        stack.close()


def statuses_of_ready(runs: RunClient) -> set[int]:
    """Return what the API's processes say of themselves."""
    return {response.status for response in send_in_parallel(lambda: runs.get("/ready"), EVERY_PROCESS)}


def test_a_run_completes_over_tls_and_nobody_talks_to_a_stranger(
    stack: Stack, proxy: TlsProxy, authority: Authority, tmp_path: Path
) -> None:
    runs = RunClient(stack, tmp_path / "counted")
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"

    proxy.present(Authority.make(tmp_path / "stranger"))
    proxy.drop_connections()
    before = proxy.handshakes
    wait_until(lambda: statuses_of_ready(runs) == {503}, what="the API trusts the stranger no more than an absent one")
    refusals = "Cannot connect to rediss://"
    wait_until(lambda: stack.logs("worker").count(refusals) >= 3, 15, "Celery's connection was tried and refused")
    assert "CERTIFICATE_VERIFY_FAILED" in stack.logs("worker").partition(refusals)[2]
    assert proxy.handshakes == before, "each client refused the certificate before it sent anything"

    proxy.present(authority)
    wait_until(lambda: statuses_of_ready(runs) == {200}, what="the right server is back")
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
    assert "insecure" not in stack.logs("worker"), "kombu does not warn of what is not so"


def make_replica(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", "1")


def fill(client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1")


def take_rights(client: redis.Redis) -> None:
    client.acl_setuser("default", enabled=True, nopass=True, commands=["-@write", "+acl"])


def heal(client: redis.Redis) -> None:
    client.acl_setuser("default", enabled=True, nopass=True, commands=["+@all"])
    client.replicaof("NO", "ONE")
    client.config_set("maxmemory", "0")


@pytest.mark.parametrize("refuse", [make_replica, fill, take_rights])
def test_a_redis_that_refuses_writes_is_away_and_a_worker_waits_for_it(
    stack: Stack, tmp_path: Path, refuse: Callable[[redis.Redis], None]
) -> None:
    runs = RunClient(stack, tmp_path / "counted")
    refuse(stack.redis())
    wait_until(lambda: statuses_of_ready(runs) == {503}, what="each process of the API has noticed")
    assert {(response.status, response.error_code) for response in send_in_parallel(runs.submit, EVERY_PROCESS)} == {
        (503, "unavailable")
    }
    health = runs.get("/health").body
    assert (health["status"], health["services"]["redis"]) == ("degraded", "disconnected")

    stack.kill("worker")
    printed = len(stack.logs("worker"))
    stack.start("worker", wait=False)
    wait_until(lambda: stack.logs("worker")[printed:].count("Cannot connect to rediss://") >= 2, 20, "the worker waits")
    assert stack.is_alive("worker")
    started = stack.pid("worker")

    heal(stack.redis())
    wait_until(lambda: statuses_of_ready(runs) == {200}, what="each process of the API has noticed")
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
    assert stack.pid("worker") == started
    assert "Unrecoverable" not in stack.logs("worker")


def test_a_worker_survives_a_demotion_while_it_waits_for_messages(stack: Stack, tmp_path: Path) -> None:
    runs = RunClient(stack, tmp_path / "counted")
    before = stack.pid("worker")
    printed = len(stack.logs("worker"))
    make_replica(stack.redis())
    wait_until(lambda: "Cannot connect to rediss://" in stack.logs("worker")[printed:], 15, "the worker has noticed")
    heal(stack.redis())
    wait_until(lambda: statuses_of_ready(runs) == {200}, what="each process of the API has noticed")
    assert runs.wait_done(runs.submit().execution_id)["status"] == "completed"
    assert stack.pid("worker") == before
