"""Checks each reply: nothing of the other integrator in it, and the status that the permission table says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from shared.domain.access.caller import ROLE_PERMISSIONS, Permission, Role
from tests.trust.request_maker import MadeRequest

EXECUTION_ID: Final = re.compile(rb"[0-9]{10}_[0-9a-f]{16}")
_PAYLOADS: Final = Permission.READ_PAYLOADS
_DIFFERS_BY_CHANCE: Final = re.compile(rb'"(?:request_id|timestamp)":"[^"]*"')
_SUGGESTION: Final = re.compile(rb"did you mean '[^']*'\?|GET /[a-z-]+ lists those there are")
"""An own name that resembles the one that was not found; what is foreign in it is found by its marker."""
_HEADERS_BY_CHANCE: Final = {"date", "x-request-id", "content-length", "connection"} | {
    f"x-ratelimit-{name}"
    for name in ("limit", "remaining", "reset")  # of the caller's own key, whatever it asks for
}


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it came, with its headers in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Return whether the status is 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the parsed body; None if it is no JSON."""
        return json.loads(self.body) if self.body and "json" in self.headers.get("content-type", "") else None

    def head(self) -> bytes:
        """Return the headers as bytes."""
        return "\n".join(f"{name}: {value}" for name, value in self.headers.items()).encode()


def expected_status(request: MadeRequest) -> tuple[Callable[[int], bool], str]:
    """Return a test of the status of the reply to ``request`` by the permission table, and its name."""
    permission, credential = request.operation.permission, request.credential
    documented = request.operation.statuses - {401, 403, 500}
    expected, name = documented, "a documented status, and no refusal: the role permits it"
    if permission is Permission.PUBLIC:
        expected, name = documented | {404}, "a documented status, and no refusal: the route is public"
    elif credential.role is None:
        needs_none = credential.key is None and permission is Permission.OPTIONAL
        expected, name = ({200}, "200: it needs no key") if needs_none else ({401}, "401: there is no valid key")
    elif not credential.may(ROLE_PERMISSIONS, permission):
        expected, name = {403}, f"403: the role lacks {permission}"
    elif request.is_foreign and credential.role is not Role.ADMIN:
        is_batch = "items" in (request.body or ())
        # Before it is looked up, an idempotency key of the caller's own may be refused.
        expected, name = {202, 422} if is_batch else {400, 404, 422}, "404: it belongs to the other integrator"
    if 403 not in expected and _asks_for_payloads(request) and not credential.may(ROLE_PERMISSIONS, _PAYLOADS):
        expected, name = expected | {403}, f"{name}, or 403: the role sees no payloads"
    return expected.__contains__, name


def _asks_for_payloads(request: MadeRequest) -> bool:
    """Return whether the parameters may ask for more than a caller without payloads may see."""
    is_full = isinstance(request.body, dict) and request.body.get("view") == "full"
    return is_full or not {"fields", "after"}.isdisjoint(request.query)


def has_payload(request: MadeRequest, reply: Reply) -> bool:
    """Return whether a caller that may not see inputs, outputs and logs is shown one."""
    credential = request.credential
    is_blind = credential.role is not None and not credential.may(ROLE_PERMISSIONS, _PAYLOADS)
    return is_blind and f"{request.party.marker}-payload-".encode() in reply.body


def foreign_texts(request: MadeRequest, reply: Reply, unguessable: re.Pattern[bytes]) -> Iterator[str]:
    """Yield each text of the other integrator in a reply that the request itself did not have."""
    sent = request.sent_bytes()
    for part in (reply.head(), reply.body, *_decoded_cursors(reply)):
        for text in unguessable.findall(part):
            if text not in sent:
                yield text.decode()


def accepted_foreign_basket(request: MadeRequest, reply: Reply) -> bool:
    """Return whether a batch has accepted an item that names a basket of the other integrator."""
    body = reply.json() if reply.is_success and request.foreign_basket is not None else None
    if not isinstance(body, dict) or "items" not in body:
        return False
    pairs = zip(request.body["items"], body["items"], strict=True)
    return any(item.get("basket_name") == request.foreign_basket and made["status"] < 400 for item, made in pairs)


def execution_ids(request: MadeRequest, reply: Reply) -> Iterator[str]:
    """Yield the ids of the executions that a reply says something about.

    A refusal may repeat the id that was asked for, and so may a list of those that were not found.
    """
    sent = request.sent_bytes()
    parsed = reply.json() if b'"not_found"' in reply.body else None
    body = reply.body
    if reply.is_success and isinstance(parsed, dict):
        body = json.dumps({name: value for name, value in parsed.items() if name != "not_found"}).encode()
    for part in (reply.head(), body, *_decoded_cursors(reply)):
        for found in EXECUTION_ID.findall(part):
            if reply.is_success or found not in sent:
                yield found.decode()


def without_own_attempts(reply: Reply, integrator: str) -> Reply:
    """Return a page of the audit without what the integrator's own events name.

    It may have asked for a thing of the other one, by a name that it knew: then its own log says so.
    """
    page = reply.json()
    for event in page["events"]:
        if event["integrator"] == integrator:
            del event["object"]
            if event["action"] == "execution.bulk_action":
                event.pop("after", None)  # the filters that it was sent
    return replace(reply, body=json.dumps(page, separators=(",", ":")).encode())


def without_own_filter(reply: Reply) -> Reply:
    """Return the input of a run; of a bulk action without it, because its filter may name what its caller only knew."""
    value = reply.json()
    is_action = isinstance(value, dict) and value.keys() - {"dry_run", "limit"} == {"action", "filter"}
    return replace(reply, body=b"{}") if is_action else reply


def _decoded_cursors(reply: Reply) -> Iterator[bytes]:
    for cursor in re.findall(rb'"(?:cursor|next_cursor|next_since)":"([\w-]+)"', reply.body):
        yield base64.urlsafe_b64decode(cursor + b"=" * (-len(cursor) % 4))


def without_chance(reply: Reply, value: str) -> tuple[int, bytes, bytes]:
    """Return a reply without what is different each time, and with ``value`` replaced: two of them can be compared."""
    headers = {name: each for name, each in reply.headers.items() if name not in _HEADERS_BY_CHANCE}
    head = repr(sorted(headers.items())).replace(value, "VALUE").encode()
    body = _DIFFERS_BY_CHANCE.sub(b"", reply.body.replace(value.encode(), b"VALUE"))
    return reply.status, head, _SUGGESTION.sub(b"", body)
