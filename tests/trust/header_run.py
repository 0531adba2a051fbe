"""Sends made-up ``Authorization`` headers to the application of the API in this process, and checks each refusal."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, Final

import structlog
from werkzeug.test import create_environ

from api.app import create_app
from api.auth.key_service import KeyService
from shared.bootstrap import Services, bootstrap
from shared.domain.access.api_key import KeyRequest, issue_key
from shared.domain.access.caller import Role
from shared.settings import Settings
from tests.token_issuer import AUDIENCE, ISSUER, TokenIssuer
from tests.trust.header_fuzz import FuzzedHeader, HeaderFuzzer
from tests.trust.token_fuzz import TokenFuzzer
from tests.waiting import wait_until

_ROUTES: Final = (
    ("GET", "/me"), ("GET", "/executions"), ("POST", "/run-basket"), ("GET", "/keys"), ("GET", "/metrics"),
    ("GET", "/executions/1796186456_f4307d3152d92812"), ("DELETE", "/baskets/working_test"),
    ("PUT", "/consumers/some"), ("GET", "/api/v1/logs"),
)  # fmt: skip
_WINDOW: Final = 16
"""Characters of a header that a reply must not repeat; the id of a key, which is no secret, is shorter."""
_VALID_EVERY: Final = 250
_TOKENS: Final = 0.4
"""The share of tokens; the rest are keys."""


@dataclass(slots=True)
class HeaderFindings:
    """How many headers of each kind were sent, the statuses of the replies, and what was wrong."""

    headers: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def report(self) -> Iterator[str]:
        """Yield the lines of a report."""
        statuses = ", ".join(f"{status}: {number}" for status, number in sorted(self.statuses.items()))
        yield f"{self.headers} headers of {len(self.kinds)} kinds, {len(self.faults)} faults; {statuses}"
        yield from self.faults[:20]


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: dict[str, str]
    body: bytes


def run_headers(redis_url: str, mongodb_url: str, *, headers: int, seed: int) -> HeaderFindings:
    """Send ``headers`` made-up headers; every few hundred a valid key shows that keys are accepted at all."""
    rng, findings = random.Random(seed), HeaderFindings()
    with TokenIssuer() as issuer, _application(redis_url, mongodb_url, issuer) as (application, services):
        valid, ended = _make_keys(services)
        keys, tokens = HeaderFuzzer(rng, valid, ended), TokenFuzzer(rng, issuer, services.clock.now().timestamp())
        for number in range(headers):
            if number % _VALID_EVERY == 0:
                for good in (rng.choice(valid), tokens.valid()):
                    accepted = _call(application, "GET", "/me", {"HTTP_AUTHORIZATION": f"Bearer {good}"})
                    if accepted.status != 200:
                        findings.faults.append(f"what is valid is refused: {accepted.status} {accepted.body!r}")
            header = tokens.make() if rng.random() < _TOKENS else keys.make()
            method, path = rng.choice(_ROUTES)
            reply = _call(application, method, path, header.environ)
            findings.headers += 1
            findings.kinds[header.kind] += 1
            findings.statuses[reply.status] += 1
            findings.faults += [
                f"{fault}: {header.kind}: {method} {path} {str(header.environ)[:300]} -> {reply.status} {reply.body!r}"
                for fault in _faults(header, reply)
            ]
    return findings


def _faults(header: FuzzedHeader, reply: _Reply) -> Iterator[str]:
    if reply.status not in {401, 403}:
        yield "not refused"
    if reply.status == 401 and not reply.headers.get("www-authenticate", "").startswith("Bearer"):
        yield "401 without WWW-Authenticate"
    if (reply.status == 403) and header.kind not in {"ended", "token: claim", "token: missing claim"}:
        yield "403 for what is no key"
    said = reply.body + repr(sorted(reply.headers.items())).encode()
    windows = range(0, min(len(header.secret) - _WINDOW + 1, 400), 4)
    if any(header.secret[begin : begin + _WINDOW].encode() in said for begin in windows):
        yield "the reply repeats the header"


@contextmanager
def _application(
    redis_url: str, mongodb_url: str, issuer: TokenIssuer
) -> Iterator[tuple[Callable[..., Any], Services]]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    settings = replace(
        Settings(),
        redis_url=redis_url,
        mongodb_url=mongodb_url,
        auth="required",
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_jwks=issuer.url,
    )
    services = bootstrap(settings, "api")
    with closing(services.database), closing(services.redis):
        application, start = create_app(services)
        start()  # the keys of the issuer are read in the background
        wait_until(lambda: _call(application, "GET", "/ready", {}).status == 200, 20, "the application serves")
        yield application, services


def _make_keys(services: Services) -> tuple[list[str], list[str]]:
    """Return keys that hold, and keys that have ended or do not hold from here."""
    service, now = KeyService(services), services.clock.now()
    valid = [service.create(KeyRequest(role, "some"), "test")["key"] for role in Role]
    expired, record = issue_key(KeyRequest(Role.ADMIN, "some"), now - timedelta(days=91), "test", b"")
    services.keys.add(record)
    revoked = service.create(KeyRequest(Role.ADMIN, "some"), "test")
    service.revoke(revoked["id"])
    rotated = service.create(KeyRequest(Role.ADMIN, "some"), "test")
    valid.append(service.rotate(rotated["id"], timedelta(0), "test")["key"])
    elsewhere = service.create(KeyRequest(Role.ADMIN, "some", networks=(ip_network("192.0.2.0/24"),)), "test")
    return valid, [expired, revoked["key"], rotated["key"], elsewhere["key"]]


def _call(application: Callable[..., Any], method: str, path: str, own: Any) -> _Reply:
    body = own.get("body", b"")
    environ = create_environ(path, "http://127.0.0.1", method=method, input_stream=io.BytesIO(body))
    environ |= {name: value for name, value in own.items() if name != "body"}
    environ |= {"REMOTE_ADDR": "127.0.0.1", "CONTENT_LENGTH": str(len(body)), "HTTP_X_FORWARDED_FOR": "192.0.2.7"}
    started: list[Any] = []
    chunks = application(environ, lambda *reply: started.append(reply))
    said = b"".join(chunks)
    if hasattr(chunks, "close"):
        chunks.close()
    status, headers = started[-1][:2]
    return _Reply(int(status[:3]), {name.lower(): value for name, value in headers}, said)
