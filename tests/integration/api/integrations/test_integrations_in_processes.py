"""The register of integrations on a real stack with two processes of the API, each on connections of its own."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from api.auth.key_service import KeyService
from shared.bootstrap import bootstrap
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.caller import Role
from shared.domain.access.integration_checklists import CHECKLIST_ITEMS
from shared.settings import Settings
from tests.callers import PEPPER
from tests.integration.api.integrations.conftest import REQUEST
from tests.stack import Stack
from tests.waiting import descendants, wait_until

PROMISED_S: Final = 2.0
"""Within so long every process refuses a suspended integration: docs/integrations.md."""
CONNECTIONS_EACH: Final = 3
ROUNDS: Final = 5
_LOCAL: Final = 1
_REMOTE: Final = 2
_INODE: Final = 9


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request was answered with."""

    status: int
    body: dict[str, Any]

    @property
    def error_code(self) -> str | None:
        return self.body.get("error_code")


@dataclass(slots=True)
class ApiProcess:
    """One process of the API, and the connections to it, which stay open; each is for one thread at a time."""

    admin_key: str
    connections: list[http.client.HTTPConnection] = field(default_factory=list)

    def send(self, method: str, path: str, body: Any = None, *, key: str | None = None, by: int = 0) -> Reply:
        connection = self.connections[by]
        headers = {"Authorization": f"Bearer {key or self.admin_key}", "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        with connection.getresponse() as response:
            return Reply(response.status, json.loads(response.read() or b"{}"))

    def submit(self, key: str, *script: str) -> Reply:
        """Submit a run of the simulator, again while the store is away for a moment."""
        body = {"config": {"name": "played", "agents": ["simulate"]}, "input_data": {"script": script}}
        replies: list[Reply] = []

        def is_answered() -> bool:
            replies.append(self.send("POST", "/run-basket", body, key=key))
            return replies[-1].status != 503

        wait_until(is_answered, 30, "the store is there")
        return replies[-1]

    def change(self, integration_id: str, action: str, body: Any = None, *, by: int = 0) -> Reply:
        return self.send("POST", f"/integrations/{integration_id}/{action}", body, by=by)

    def in_review(self, name: str) -> str:
        """Return the id of a new integration that is in review, with all items done."""
        reply = self.send("POST", "/integrations", REQUEST | {"name": name, "baskets": []})
        assert reply.status == 201, reply.body
        integration_id = str(reply.body["id"])
        self.send("PUT", f"/integrations/{integration_id}/checklist", dict.fromkeys(CHECKLIST_ITEMS, True))
        assert self.change(integration_id, "review").status == 200
        return integration_id

    def approved(self, name: str) -> str:
        integration_id = self.in_review(name)
        assert self.change(integration_id, "approve").status == 200
        return integration_id

    def key_of(self, role: Role, integrator: str, **more: Any) -> str:
        reply = self.send("POST", "/keys", {"role": str(role), "integrator": integrator, **more})
        assert reply.status == 201, reply.body
        return str(reply.body["key"])


@pytest.fixture(scope="module")
def processes(make_stack: Callable[..., Stack]) -> Iterator[tuple[ApiProcess, ApiProcess]]:
    """Yield the two processes of an API that lets only keys of active integrations submit."""
    stack = make_stack(
        BUCKET_AUTH="required",
        BUCKET_KEY_PEPPER=PEPPER,
        BUCKET_INTEGRATIONS="required",
        BUCKET_API_PROCESSES="2",
    )
    settings = Settings(redis_url=stack.redis_url, mongodb_url=stack.mongodb_url, auth="required", key_pepper=PEPPER)
    services = bootstrap(settings, "api")
    with closing(services.database), closing(services.redis):
        admin_key = KeyService(services).create(KeyRequest(Role.ADMIN, "public"), "test")["key"]
    by_pid: dict[int, ApiProcess] = {}
    spare: list[http.client.HTTPConnection] = []

    def are_connected() -> bool:
        connection = http.client.HTTPConnection(str(urlsplit(stack.url).netloc), timeout=10)
        connection.connect()
        connection.auto_open = 0  # a new connection could reach the other process
        process = by_pid.setdefault(_server_of(connection, stack), ApiProcess(admin_key))
        (spare if len(process.connections) == CONNECTIONS_EACH else process.connections).append(connection)
        return sorted(len(each.connections) for each in by_pid.values()) == [CONNECTIONS_EACH] * 2

    wait_until(are_connected, 20, "both processes have taken connections")
    one, other = by_pid.values()
    yield one, other
    for connection in (*one.connections, *other.connections, *spare):
        connection.close()


def _server_of(connection: http.client.HTTPConnection, stack: Stack) -> int:
    """Return the id of the process that serves a connection: Linux says which has the other end of it."""
    connection.request("GET", "/health")  # so that the process has taken it
    connection.getresponse().read()
    client, server = (f"{name[1]:04X}" for name in (connection.sock.getsockname(), connection.sock.getpeername()))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    [inode] = [
        row[_INODE] for row in rows if row[_LOCAL].endswith(f":{server}") and row[_REMOTE].endswith(f":{client}")
    ]
    [pid] = [pid for pid in descendants(stack.pid("api")) if f"socket:[{inode}]" in _open_files(pid)]
    return pid


def _open_files(pid: int) -> set[str]:
    return {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}


def at_once(calls: Sequence[Callable[[], Reply]]) -> list[Reply]:
    """Return the replies to calls that begin together, in their order."""
    begin = Barrier(len(calls))

    def call(each: Callable[[], Reply]) -> Reply:
        begin.wait(10)
        return each()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, calls))


def test_a_suspension_at_one_process_stops_what_starts_runs_at_both_and_nothing_else(
    processes: tuple[ApiProcess, ApiProcess],
) -> None:
    one, other = processes
    integration_id = one.approved("acme")
    key = other.change(integration_id, "activate").body["key"]
    assert [process.submit(key, "completed").status for process in processes] == [202] * 2, "at once, wherever it comes"
    operator = other.key_of(Role.OPERATOR, "acme", integration=integration_id)
    plain_operator = one.key_of(Role.OPERATOR, "acme")

    runs = [process.submit(key, "failed:worker_lost").body["execution_id"] for process in processes]
    running = other.submit(key, "running:60").body["execution_id"]
    for run in runs:
        wait_until(partial(_is_done, one, run, key), 20, "the run has failed")
    letters = [letter["id"] for letter in one.send("GET", "/dead-letters", key=operator).body["dead_letters"]]
    assert sorted(letters) == sorted(runs)
    for process in processes:
        refused = process.submit(plain_operator)
        assert (refused.status, refused.error_code) == (403, "integration_inactive"), "it belongs to no integration"

    assert one.change(integration_id, "suspend", {"comment": "leak"}).body["status"] == "suspended"
    assert one.submit(key).error_code == "integration_inactive", "at once in the process that was told"
    wait_until(lambda: other.submit(key).status == 403, PROMISED_S, "the other process refuses too")

    agent = {"agent_name": "simulate", "input_data": {"script": ["completed"]}}
    run = {"config": {"name": "played", "agents": ["simulate"]}, "input_data": {"script": ["completed"]}}
    for process in processes:
        for sender, path, body in (
            (key, "/run-basket", run),
            (key, "/run-agent", agent),
            (key, "/run-basket/batch", {"items": [run]}),
            (key, f"/executions/{runs[0]}/retry", {}),
            (operator, f"/executions/{runs[0]}/retry", {}),
            (operator, f"/dead-letters/{letters[0]}/requeue", {}),
        ):
            refused = process.send("POST", path, body, key=sender)
            assert (refused.status, refused.error_code) == (403, "integration_inactive"), path
            assert "is suspended" in refused.body["detail"], path
        for path in (
            f"/execution-logs/{running}",
            f"/executions/{running}",
            "/executions",
            "/executions/changes",
            "/me",
        ):
            assert process.send("GET", path, key=key).status == 200, path
        many = process.send("POST", "/executions/poll", {"items": [{"execution_id": running}]}, key=key)
        assert many.status == 200, many.body
    assert other.send("POST", f"/executions/{running}/cancel", {}, key=key).status in {200, 202}
    assert other.send("POST", f"/dead-letters/{letters[0]}/requeue", {}, key=plain_operator).status == 202

    again = other.change(integration_id, "activate").body
    assert (again["status"], "key" in again) == ("active", False)
    assert other.submit(key).status == 202, "at once in the process that was told"
    wait_until(lambda: one.submit(key).status == 202, PROMISED_S, "the other process lets it submit again")
    assert one.send("POST", f"/dead-letters/{letters[1]}/requeue", {}, key=operator).status == 202


def _is_done(process: ApiProcess, run: str, key: str) -> bool:
    return bool(process.send("GET", f"/execution-logs/{run}", key=key).body["done"])


def test_activations_at_once_issue_one_key(processes: tuple[ApiProcess, ApiProcess]) -> None:
    for number in range(ROUNDS):
        integration_id = processes[number % 2].approved(f"at-once-{number}")
        replies = at_once([
            partial(process.change, integration_id, "activate", by=by)
            for process in processes
            for by in range(CONNECTIONS_EACH)
        ])  # fmt: skip
        [won] = [reply.body for reply in replies if reply.status == 200]
        refused = [reply for reply in replies if reply.status != 200]
        assert {(reply.status, reply.error_code) for reply in refused} == {(409, "integration_state")}
        assert all(f"'at-once-{number}'" in reply.body["detail"] for reply in refused)
        keys = processes[0].send("GET", "/keys?limit=500").body["keys"]
        valid = [each["id"] for each in keys if each["integration"] == integration_id and each["status"] == "active"]
        assert valid == [won["key_id"]]
        assert [process.submit(won["key"], "completed").status for process in processes] == [202, 202]


def test_of_contradictory_changes_at_once_one_wins_and_the_other_is_told_why(
    processes: tuple[ApiProcess, ApiProcess],
) -> None:
    one, other = processes
    for number in range(ROUNDS):
        integration_id = one.in_review(f"disputed-{number}")
        approval, refusal = at_once([
            partial(one.change, integration_id, "approve"),
            partial(other.change, integration_id, "request-changes", {"comment": "volume?"}),
        ])  # fmt: skip
        assert sorted((approval.status, refusal.status)) == [200, 409]
        won, lost = (approval, refusal) if approval.status == 200 else (refusal, approval)
        assert lost.error_code == "integration_state"
        assert f"'disputed-{number}' is {won.body['status']}" in lost.body["detail"]
        for process in processes:
            stored = process.send("GET", f"/integrations/{integration_id}").body
            assert (stored["status"], len(stored["history"])) == (won.body["status"], 3), "request, review and one more"


def test_ticks_at_once_are_all_kept(processes: tuple[ApiProcess, ApiProcess]) -> None:
    one, other = processes
    integration_id = one.send("POST", "/integrations", REQUEST | {"name": "ticked", "baskets": []}).body["id"]
    path = f"/integrations/{integration_id}/checklist"
    items = list(CHECKLIST_ITEMS)
    for first, second in zip(items[::2], items[1::2], strict=False):
        replies = at_once(
            [partial(one.send, "PUT", path, {first: True}), partial(other.send, "PUT", path, {second: True})]
        )
        assert [reply.status for reply in replies] == [200, 200]
    compliance = one.send("GET", f"/integrations/{integration_id}/compliance").body
    open_items = [item["id"] for item in compliance["items"] if not item["done"]]
    assert open_items == items[len(items) // 2 * 2 :]
