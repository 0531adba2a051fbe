"""Redis over TLS with the rights that the guide names; and one that refuses writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
import requests

from compose.embedded.group_reaper import GroupReaper
from compose.redis_checks import check_redis
from tests.api_client import AGENTS, EVERY_PROCESS, RunClient, send_in_parallel
from tests.stack import Stack
from tests.tls_proxy import Authority, TlsProxy
from tests.waiting import wait_until

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "deploy.md"
ACL_LINE = re.findall(r"^ACL SETUSER bucket .*$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)[0].split()


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
    """Yield a stack whose processes reach Redis by TLS, as the user that docs/deploy.md makes.

    They know the authority of its certificate from the environment.
    """
    url = f"rediss://bucket:PASSWORD@localhost:{proxy.port}/0"
    trust = {"REDIS_URL": url, "SSL_CERT_FILE": str(authority.certificate), "BUCKET_AGENTS_DIR": str(AGENTS)}
    stack = Stack(tmp_path_factory.mktemp("tls-stack"), group_reaper, **trust)
    proxy.target = stack.sockets / "redis.sock"
    try:
        for server in ("redis", "mongod"):
            stack.start(server)
        stack.redis().execute_command(*ACL_LINE)
        for process in ("api", "reconciler"):
            stack.start(process, wait=False)
        stack.start("worker")
        runs = RunClient(stack, tmp_path_factory.getbasetemp() / "unused")
        # One process may still shake hands with Redis when the other one is ready.
        wait_until(lambda: is_ready(stack) and statuses_of_ready(runs) == {200}, 20, "each process of the API is ready")
        yield stack
    finally:
        stack.close()


def is_ready(stack: Stack) -> bool:
    try:
        return requests.get(f"{stack.url}/ready", timeout=5).ok
    except requests.ConnectionError:
        return False  # it does not listen yet


def statuses_of_ready(runs: RunClient) -> set[int]:
    """Return what the API's processes say of themselves."""
    return {response.status for response in send_in_parallel(lambda: runs.get("/ready"), EVERY_PROCESS)}


def test_no_command_of_any_process_is_refused_to_the_user_of_the_guide(stack: Stack, tmp_path: Path) -> None:
    runs = RunClient(stack, tmp_path / "counted")
    done = runs.submit("echo", "chatty").execution_id
    runs.wait_done(done)
    assert requests.post(f"{stack.url}/executions/{done}/retry", json={}, timeout=5).status_code in {202, 409}
    running, scheduled = runs.submit("sleeper", seconds=30).execution_id, runs.submit(run_after_s=0.5).execution_id
    wait_until(lambda: runs.poll(running).body["status"] == "running", what="the sleeper sleeps")
    assert requests.post(f"{stack.url}/executions/{running}/cancel", timeout=5).status_code == 202
    assert runs.wait_done(running)["status"] == "completed", "the sleeper was told by the cancel, and returned"
    assert runs.get(f"/execution-logs/{scheduled}?wait=5").status == 200
    assert runs.wait_done(scheduled)["status"] == "completed"
    for path in ("/logs", "/metrics", "/executions", "/executions/changes?since=now&wait=1", "/health"):
        assert requests.get(f"{stack.url}{path}", timeout=5).status_code == 200, path
    body = {"items": [{"execution_id": done, "rev": 1}]}
    assert requests.post(f"{stack.url}/executions/poll", json=body, timeout=5).status_code == 200
    denied = [f"{entry['reason']} {entry['object']}" for entry in stack.redis().acl_log()]
    assert denied == []
    report = check_redis(stack.environ["REDIS_URL"] + f"?ssl_ca_certs={stack.environ['SSL_CERT_FILE']}")
    assert report.warnings == ()


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
    client.execute_command("ACL", "SETUSER", "bucket", "-@write")


def heal(client: redis.Redis) -> None:
    client.execute_command("ACL", "SETUSER", "bucket", "reset")
    client.execute_command(*ACL_LINE)
    client.replicaof("NO", "ONE")
    client.config_set("maxmemory", "0")


# In the order in which each one hides those before it.
REFUSALS: dict[str, Callable[[redis.Redis], None]] = {
    "command not allowed when used memory > 'maxmemory'": fill,
    "read only replica": make_replica,
    "no permissions": take_rights,
}


def test_a_redis_that_refuses_writes_is_away_and_a_worker_waits_for_it(stack: Stack, tmp_path: Path) -> None:
    runs = RunClient(stack, tmp_path / "counted")
    stack.kill("worker")
    started = 0
    for words, refuse in REFUSALS.items():
        refuse(stack.redis())
        printed = len(stack.logs("worker"))
        wait_until(lambda: statuses_of_ready(runs) == {503}, what="each process of the API has noticed")
        submits = send_in_parallel(runs.submit, EVERY_PROCESS)
        assert {(response.status, response.error_code) for response in submits} == {(503, "unavailable")}
        health = runs.get("/health").body
        assert (health["status"], health["services"]["redis"]) == ("degraded", "disconnected")
        if not started:
            stack.start("worker", wait=False)
            started = stack.pid("worker")
        refused = re.compile(f"Cannot connect to rediss://.*{words}", re.IGNORECASE)
        wait_until(partial(lambda found, at: found(stack.logs("worker")[at:]), refused.search, printed), 20, words)

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


def test_a_loss_of_redis_with_work_in_flight_leaves_no_file_and_no_alarm(stack: Stack, tmp_path: Path) -> None:
    runs = RunClient(stack, tmp_path / "counted")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    stack.stop("worker")
    stack.start("worker", TMPDIR=str(temporary))
    printed = len(stack.logs("worker"))
    # They must sleep longer than a busy machine takes to notice the loss: what has ended is no longer in flight.
    sleepers = [runs.submit("sleeper", seconds=6).execution_id for _ in range(2)]
    wait_until(lambda: all(runs.poll(run).body["status"] == "running" for run in sleepers), what="both sleep")
    stack.kill("redis")
    wait_until(lambda: "Cannot connect to rediss://" in stack.logs("worker")[printed:], 15, "the worker has noticed")
    dropped = "messages are left to the reconciler"
    wait_until(
        lambda: dropped in stack.logs("worker")[printed:], 15, "it has dropped what it held, while Redis is away"
    )
    stack.start("redis")
    stack.redis().execute_command(*ACL_LINE)
    assert {poll["status"] for poll in runs.wait_all_done(sleepers)} == {"completed"}
    assert "RESTORE" not in stack.logs("worker")[printed:].upper()
    assert [path for path in temporary.iterdir() if path.is_file()] == []
