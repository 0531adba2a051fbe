"""Learns from each reply what its caller owns now, so that later requests can name it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

from shared.domain.access.caller import Permission
from tests.trust.reply_checks import Reply
from tests.trust.request_maker import MadeRequest

_CREATING: Final = {Permission.SUBMIT, Permission.OPERATE}


def learn(request: MadeRequest, reply: Reply, rng: random.Random) -> None:
    """Take over what ``reply`` says that the caller has created, changed or deleted, and its cursors and ETags."""
    operation, party = request.operation, request.party
    if "etag" in reply.headers and "execution_id" in request.path_values:
        party.pool.add("etags", reply.headers["etag"], rng)
    body = reply.json() if reply.is_success else None
    if not isinstance(body, dict):
        return
    if operation.permission in _CREATING and not operation.path.endswith("/cancel"):
        for execution_id in _created(body):
            party.created.add(execution_id)
            party.pool.add("executions", execution_id, rng)
    _learn_names(request, body, rng)
    if operation.collection == "consumers":
        _learn_consumer(request, body, rng)
    elif operation.collection in {"baskets", "create-basket"}:
        _learn_basket(request, body, rng)


def _learn_names(request: MadeRequest, body: dict[str, Any], rng: random.Random) -> None:
    """Learn what stands under the same key in replies of several routes."""
    operation, party = request.operation, request.party
    for name in ("next_cursor", "next_since"):
        if body.get(name):
            party.pool.add(f"{name.removeprefix('next_')} {_family(operation.collection)}", body[name], rng)
            if name == "next_since":
                party.pool.add("cursor consumers", body[name], rng)
    for letter in body.get("dead_letters", ()):
        party.pool.add("letters", letter["id"], rng)
    if operation.method == "POST" and isinstance(body.get("id"), str):
        party.pool.add(operation.collection, body["id"], rng)


def _created(body: dict[str, Any]) -> Iterator[str]:
    for each in (body, *body.get("items", ())):
        if isinstance(each, dict) and isinstance(each.get("execution_id"), str):
            yield each["execution_id"]


def _family(collection: str) -> str:
    """Return the collection whose cursors are taken: a consumer's page goes on where the feed does."""
    return {"consumers": "executions", "agents": "logs"}.get(collection, collection)


def _learn_consumer(request: MadeRequest, body: dict[str, Any], rng: random.Random) -> None:
    name, writer = request.path_values.get("name"), request.writer
    if name is None or request.operation.method == "GET":
        return
    if request.operation.method == "DELETE":
        writer.consumers.pop(name, None)
        writer.pool.remove("consumers", name)
    else:
        writer.consumers[name] = body["cursor"]
        writer.pool.add("consumers", name, rng)


def _learn_basket(request: MadeRequest, body: dict[str, Any], rng: random.Random) -> None:
    writer = request.writer
    if request.operation.method == "DELETE":
        name = request.path_values["name"]
        writer.baskets.pop(name, None)
        writer.pool.remove("baskets", name)
    elif request.operation.method == "POST":
        writer.baskets[request.body["name"]] = request.body.get("description") or ""
        writer.pool.add("baskets", request.body["name"], rng)
