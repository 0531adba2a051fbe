"""``rediss://``: the API and the worker verify the certificate of Redis, also where Celery would not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
