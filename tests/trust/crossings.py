"""Two integrators send random requests of every operation at the same time; each reply is checked, then their data."""

from __future__ import annotations

import http.client
import math
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote, urlsplit

import requests

from shared.domain.access.caller import ROLE_PERMISSIONS, Permission, Role
from tests.stack import Stack
from tests.trust.afterwards import check_afterwards
from tests.trust.contract import Operation, operations_of
from tests.trust.findings import Findings
from tests.trust.header_fuzz import with_other_secret
from tests.trust.learning import learn
from tests.trust.party import Credential, Party, Writer, key_service, make_credential, make_party, new_marker
from tests.trust.reply_checks import (
    Reply,
    accepted_foreign_basket,
    execution_ids,
    expected_status,
    foreign_texts,
    has_payload,
    without_chance,
    without_own_attempts,
    without_own_filter,
)
from tests.trust.request_maker import MadeRequest, RequestMaker

SETTINGS: Final = {
    "BUCKET_AUTH": "required",
    "BUCKET_LOG_LEVEL": "WARNING",
    "BUCKET_LIMITS": '{"submit": {"per_s": 9000, "burst": 9000}, "poll": {"per_s": 9000, "burst": 9000}, '
    '"list": {"per_s": 9000, "burst": 9000}, "admin": {"per_s": 9000, "burst": 9000}}',
}
THREADS: Final = 2
"""For each of the two integrators."""
PROGRESS_EVERY_S: Final = 20.0
_WEIGHTS: Final = {
    "GET /openapi.json": 0.05,
    "GET /docs/{file}": 0.05,
    "GET /docs": 0.1,
    "GET /": 0.1,
    "GET /metrics": 0.3,
    # Of many of these few succeed: a step must have an output, a key must not have ended.
    "GET /executions/{execution_id}/outputs/{step}": 3.0,
    "GET /keys/{key_id}": 3.0,
    "GET /integrations/{integration_id}": 3.0,
    "GET /integrations/{integration_id}/compliance": 4.0,
    "POST /keys/{key_id}/rotate": 3.0,
}
_NO_KEY: Final = Credential("no key", None)


class Caller:
    """Sends requests on one connection and checks the replies; it makes its requests from a seed."""

    def __init__(
        self, stack: Stack, findings: Findings, party: Party, writer: Writer, other: Party, *, seed: str
    ) -> None:
        self._rng = random.Random(seed)
        parts = urlsplit(stack.url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        self._findings, self._party, self._writer, self._other = findings, party, writer, other
        self._unguessable = other.unguessable()
        self._is_observer = party.credentials[0].role is Role.ADMIN
        self._maker = RequestMaker(party, writer, other, self._rng)

    def play(self, operations: Sequence[Operation], times: int, due_by: float) -> None:
        """Send ``times`` random requests, each operation once and then by chance, until ``due_by``."""
        weights = [_WEIGHTS.get(operation.name, 1.0) for operation in operations]
        first = self._rng.sample(operations, len(operations))  # chance alone would leave a rare one out now and then
        done = 0
        while done < times and time.monotonic() < due_by:
            operation = first.pop() if first else self._rng.choices(operations, weights)[0]
            done += self._send_and_check(self._maker.make(operation, self._credential(operation)))
        self._connection.close()

    def _credential(self, operation: Operation) -> Credential:
        if self._is_observer:
            return self._party.credentials[0]
        chance = self._rng.random()
        if chance < 0.04:
            return _NO_KEY
        if chance < 0.06:
            genuine = self._rng.choice(self._party.credentials)
            return Credential("a key with another secret", with_other_secret(genuine.key or ""))
        holders = [each for each in self._party.credentials if each.may(ROLE_PERMISSIONS, operation.permission)]
        return self._rng.choice(holders if holders and chance < 0.8 else self._party.credentials)

    def _send_and_check(self, request: MadeRequest) -> int:
        operation = request.operation
        if operation.path.endswith("/cancel"):
            self._party.cancelled.update(request.path_values.values())
        if operation.path.endswith(("/retry", "/requeue", "/dismiss")):
            self._party.retried.update(request.path_values.values())
        reply = self._send(request)
        self._findings.count(request, reply)
        where = f"{operation.name} as {request.credential.label}"
        example = f"{request.target} {request.sent_body() or b''!r} -> {reply.status} {reply.body[:300]!r}"
        is_expected, name = expected_status(request)
        if reply.status >= 500 and (reply.status != 503 or "retry-after" not in reply.headers):
            self._findings.add(f"{operation.name}: {reply.status}", example)
        elif not is_expected(reply.status) and reply.status != 503:
            self._findings.add(f"{where}: {reply.status}, not {name}", example)
        if reply.status == 401 and "www-authenticate" not in reply.headers:
            self._findings.add(f"{where}: 401 without WWW-Authenticate", example)
        learn(request, reply, self._rng)
        if self._is_observer:
            if self._other.marker.encode() in reply.body:
                self._findings.observed.add(self._other.marker)
            return 1
        self._check_apart(request, reply, where, example)
        return 1 + self._compare_with_unknown(request, reply)

    def _check_apart(self, request: MadeRequest, reply: Reply, where: str, example: str) -> None:
        """Look for the other integrator in a reply; whose the executions are that it names is looked up at the end."""
        name = request.operation.name
        if name == "GET /audit" and reply.is_success:
            reply = without_own_attempts(reply, self._party.integrator)
        if name == "GET /executions/{execution_id}/input" and reply.is_success:
            reply = without_own_filter(reply)
        for text in foreign_texts(request, reply, self._unguessable):
            self._findings.add(f"{name}: a reply has something of the other integrator", f"{text} in {example}")
            break
        for execution_id in execution_ids(request, reply):
            self._findings.seen.setdefault((self._party.marker, execution_id), f"{name}\0{where}: {request.target}")
        if has_payload(request, reply):
            self._findings.add(f"{where}: a payload is shown to a role that sees none", example)
        if accepted_foreign_basket(request, reply):
            self._findings.add(f"{name}: an item runs a basket of the other integrator", example)
        key = request.headers.get("Idempotency-Key", "")
        if reply.status == 422 and b'"idempotency_key_reused"' in reply.body and self._party.key_uses[key] == 1:
            self._findings.add(f"{name}: a key that only the other integrator has used is refused", example)

    def _compare_with_unknown(self, request: MadeRequest, reply: Reply) -> int:
        """Send a refused request again for a thing that does not exist; both replies must be the same."""
        foreign = request.foreign_path or request.foreign_basket
        if foreign is None or reply.status not in {400, 403, 404, 422}:
            return 0
        unknown = self._maker.made_up(foreign)
        twin = replace(request, path=request.path.replace(quote(foreign, safe=""), quote(unknown, safe="")))
        if request.foreign_basket is not None:
            twin = replace(twin, body=_replaced(request.body, foreign, unknown))
        second = self._send(twin)
        self._findings.count(twin, second)
        self._findings.twins += 1
        if 503 not in {reply.status, second.status} and without_chance(reply, foreign) != without_chance(
            second, unknown
        ):
            self._findings.add(
                f"{request.operation.name}: what is foreign and what does not exist differ",
                f"{request.target} {request.sent_body()!r}:\n{without_chance(reply, foreign)}\n"
                f"{without_chance(second, unknown)}",
            )
        return 1

    def _send(self, request: MadeRequest) -> Reply:
        for _ in range(2):
            try:
                self._connection.request(
                    request.operation.method, request.target, request.sent_body(), headers=request.headers
                )
                response = self._connection.getresponse()
                headers = {name.lower(): value for name, value in response.getheaders()}
                return Reply(response.status, headers, response.read())
            except (http.client.RemoteDisconnected, ConnectionError):  # a process of the API closed an idle connection
                self._connection.close()
        raise AssertionError(f"{request.operation.name}: the API closes each connection")


def _replaced(body: Any, foreign: str, unknown: str) -> Any:
    if isinstance(body, dict):
        return {name: _replaced(value, foreign, unknown) for name, value in body.items()}
    if isinstance(body, list):
        return [_replaced(value, foreign, unknown) for value in body]
    return unknown if body == foreign else body


def run_crossings(
    stack: Stack,
    *,
    operations: int,
    seed: int,
    within_s: float = math.inf,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Let both integrators and an observer send ``operations`` requests to ``stack``; return what was found.

    ``on_progress`` is given a line now and then; after ``within_s`` no more requests are sent.
    """
    findings, rng, due_by = Findings(), random.Random(seed), time.monotonic() + within_s
    every = operations_of(requests.get(f"{stack.url}/openapi.json", timeout=10).json())
    with key_service(stack) as keys:
        parties = [make_party(keys, rng, THREADS) for _ in range(2)]
        admin = Party(new_marker(rng), [make_credential(keys, Role.ADMIN, "operations")], [Writer(0)])
    observed = [each for each in every if each.method == "GET" or each.permission is Permission.ADMINISTER]
    plays = [
        (Caller(stack, findings, party, writer, other, seed=f"{seed}-{party.marker}-{writer.number}"), every, 0.225)
        for party, other in (parties, reversed(parties))
        for writer in party.writers
    ]
    plays += [
        (Caller(stack, findings, admin, admin.writers[0], party, seed=f"{seed}-admin-{party.marker}"), observed, 0.05)
        for party in parties
    ]
    with ThreadPoolExecutor(len(plays)) as threads:
        pending = {
            threads.submit(caller.play, some, round(operations * share), due_by) for caller, some, share in plays
        }
        while pending:
            done, pending = wait(pending, timeout=PROGRESS_EVERY_S)
            for future in done:
                future.result()
            on_progress(f"{findings.operations} operations, {sum(findings.faults.values())} faults")
    check_afterwards(stack, findings, parties, every)
    return findings
