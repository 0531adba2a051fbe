"""Accepts the items of a batch: one look for their keys, one insert and one pipeline for all, an outcome for each.

A key that the batch itself was sent with is kept with each run at its item's place, so that the same batch again makes
no second run of any, and another batch under that key is refused as a whole. Where no item can be taken because a store
is away or too much waits, the whole is refused as a single submit would be, for whoever repeats it by its status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Final

import flask
import marshmallow
import orjson
import structlog
from flask import request

from api.background import Keeper
from api.catalogue.basket_cache import KnownBaskets
from api.http import problems
from api.http.body_policy import NOWHERE, check_policy
from api.http.request_body import fingerprint, invalid
from api.schemas import ITEMS_MAX, RUN_BASKET_KEYS, RunBasket
from api.submission.acceptor import Asker, check_replay, told_of
from api.submission.run_builder import is_key, traceparent_of
from api.submission.submit import run_of_basket, warnings_of
from shared import faults
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC, Execution, Idempotency
from shared.domain.lifecycle.decision import Advance
from shared.domain.lifecycle.transitions import start
from shared.errors import (
    BucketError,
    InternalError,
    OutcomeUnknown,
    Unavailable,
    ValidationFailed,
)

_ROUTE: Final = "/run-basket"
_BATCH_ROUTE: Final = "/run-basket/batch"
_KEY: Final = "idempotency_key"
_ITEM_KEYS: Final = (*RUN_BASKET_KEYS, _KEY)
_ACCEPTED: Final = 202
_SERVER_FAULT: Final = 500
# Between a batch's key and the place of an item stands what no caller can write into a key of his own.
_AT: Final = "\x1f"


@dataclass(frozen=True, slots=True)
class _Item:
    """One item that is well formed."""

    body: Mapping[str, Any]
    warnings: Sequence[str]
    idempotency: Idempotency | None


@dataclass(frozen=True, slots=True)
class _Taken:
    """A run that an item was given; ``replayed`` where it was accepted before."""

    run: Execution
    warnings: Sequence[str]
    replayed: bool = False


_Outcome = _Taken | BucketError


class BatchAcceptor:
    """Makes executions of batches."""

    def __init__(self, services: Services, keeper: Keeper, known: KnownBaskets) -> None:
        self._services = services
        self._keeper = keeper
        self._known = known
        self._schema = RunBasket()

    def accept(self, body: Mapping[str, Any], key: str | None, warnings: Sequence[str] = ()) -> flask.Response:
        """Answer what became of each item of a batch, whose own ``key`` comes after the items' own.

        Raises IdempotencyKeyReused where ``key`` belongs to another batch, and Unavailable, Overloaded or
        OutcomeUnknown where that is what became of all items.
        """
        places = [] if key is None else _places(Idempotency(key, fingerprint(_BATCH_ROUTE, body)))
        items = [self._read(item, place) for item, place in zip_longest(body["items"], places[: len(body["items"])])]
        outcomes = self._outcomes(items, self._holders(items, places))
        first = outcomes[0]
        if isinstance(first, (Unavailable, OutcomeUnknown)) and all(type(each) is type(first) for each in outcomes):
            raise first
        return self._response(outcomes, warnings)

    def _read(self, item: Any, of_batch: Idempotency | None) -> _Item | BucketError:
        """One item as the body of a submit, its own key before that of the batch."""
        try:
            if not isinstance(item, dict):
                fault = {"pointer": "", "message": "not an object"}
                raise ValidationFailed("an item must be a JSON object", details=[fault])
            check_policy(item)
            body = {name: value for name, value in item.items() if name != _KEY}
            key = _own_key(item)
            idempotency = of_batch if key is None else Idempotency(key, fingerprint(_ROUTE, body))
            loaded = self._schema.load(body)
            return _Item(loaded, warnings_of(item, loaded, _ITEM_KEYS, NOWHERE), idempotency)
        except marshmallow.ValidationError as wrong:
            return invalid({"json": wrong.messages})
        except BucketError as refused:
            return refused

    def _outcomes(self, items: Sequence[_Item | BucketError], holders: Mapping[str, Execution]) -> list[_Outcome]:
        outcomes: dict[int, _Outcome] = {}
        fresh: dict[int, tuple[_Item, Advance]] = {}
        first_of_key: dict[str, int] = {}
        away: Unavailable | None = None  # a store that does not answer one item is not waited for by hundreds
        for at, item in enumerate(items):
            if isinstance(item, BucketError):
                outcomes[at] = item
                continue
            key = None if item.idempotency is None else item.idempotency.key
            if key is not None and key in holders:
                outcomes[at] = _replay(holders[key], item)
            elif key not in first_of_key:
                made = away or self._made(item, beside=len(fresh))
                if isinstance(made, BucketError):
                    outcomes[at] = made
                    away = made if isinstance(made, Unavailable) else away
                    continue
                fresh[at] = (item, made)
                if key is not None:
                    first_of_key[key] = at
        outcomes |= self._stored(fresh)
        for at, item in enumerate(items):
            if at not in outcomes and isinstance(item, _Item) and item.idempotency is not None:
                first = outcomes[first_of_key[item.idempotency.key]]
                outcomes[at] = _replay(first.run, item) if isinstance(first, _Taken) else first
        return [outcomes[at] for at in range(len(items))]

    def _holders(self, items: Sequence[_Item | BucketError], places: Sequence[Idempotency]) -> Mapping[str, Execution]:
        """Who holds the items' keys; raises IdempotencyKeyReused where another batch has taken any of the ``places``.

        Not only those that items are at: another batch may have left free what this one asks for, by a bad item.
        """
        asked = [item.idempotency for item in items if isinstance(item, _Item) and item.idempotency is not None]
        keys = {each.key for each in (*asked, *places)}
        holders = self._services.many.holders(PUBLIC, keys) if keys else {}
        for place in places:
            if place.key in holders:
                check_replay(holders[place.key], place)
        return holders

    def _made(self, item: _Item, *, beside: int) -> Advance | BucketError:
        """The run that an item asks for, as it is to be stored ``beside`` so many others."""
        try:
            self._keeper.check_may_accept(beside)
            asker = Asker(
                self._services.clock.now(),
                flask.g.request_id,
                traceparent_of(request.headers.get("traceparent")),
                item.idempotency,
            )
            run = run_of_basket(self._services.catalogue, self._known, item.body, asker)
            return start(run, run.created_at, self._services.terms)
        except BucketError as refused:
            return refused

    def _stored(self, fresh: Mapping[int, tuple[_Item, Advance]]) -> dict[int, _Outcome]:
        """Store and offer what is new; what was stored under a key meanwhile is replayed."""
        outcomes: dict[int, _Outcome] = {}
        new: list[Advance] = []
        stored = self._services.many.create_many([advance for _, advance in fresh.values()])
        for (at, (item, advance)), made in zip(fresh.items(), stored, strict=True):
            if isinstance(made, BucketError):
                outcomes[at] = self._not_stored(advance.execution, made)
            elif made.id != advance.execution.id:
                outcomes[at] = _replay(made, item)
            else:
                outcomes[at] = _Taken(made, item.warnings)
                new.append(advance)
        if new:
            faults.reach("api.inserted")
            self._services.publisher.accepted(new)
        return outcomes

    def _not_stored(self, run: Execution, error: BucketError) -> BucketError:
        if isinstance(error, OutcomeUnknown) and run.idempotency is None:
            self._keeper.withdraw(run)
        return error

    def _response(self, outcomes: Sequence[_Outcome], warnings: Sequence[str]) -> flask.Response:
        told: dict[str, Any] = {
            "items": [self._told(outcome) for outcome in outcomes],
            "accepted": sum(isinstance(outcome, _Taken) for outcome in outcomes),
            "rejected": sum(isinstance(outcome, BucketError) for outcome in outcomes),
        }
        if warnings:
            told["warnings"] = warnings
        headers = {"Cache-Control": "no-store"}
        taken = [outcome.replayed for outcome in outcomes if isinstance(outcome, _Taken)]
        if taken and all(taken):
            headers["Idempotency-Replayed"] = "true"
        return flask.Response(orjson.dumps(told), _ACCEPTED, headers, mimetype="application/json")

    def _told(self, outcome: _Outcome) -> dict[str, Any]:
        if isinstance(outcome, BucketError):
            return problems.body_of(_fit_to_be_told(outcome), flask.g.request_id)
        run = outcome.run
        hints = self._keeper.hints_of(run)
        told = told_of(run, hints.poll_after_ms, outcome.warnings)
        told |= {"status": _ACCEPTED, "execution_status": run.status}
        return told | ({"idempotency_replayed": True} if outcome.replayed else {})


def _places(of_batch: Idempotency) -> Sequence[Idempotency]:
    """The keys of all places that a batch may have, each with the mark of the whole."""
    return [replace(of_batch, key=f"{of_batch.key}{_AT}{at}") for at in range(ITEMS_MAX)]


def _own_key(item: Mapping[str, Any]) -> str | None:
    key = item.get(_KEY)
    if key is not None and not (isinstance(key, str) and is_key(key)):
        fault = {"pointer": f"/{_KEY}", "message": "must be 1 to 255 printable ASCII characters"}
        raise ValidationFailed(f"{_KEY} {fault['message']}", details=[fault])
    return key


def _replay(holder: Execution, item: _Item) -> _Outcome:
    """The run that holds an item's key already, or the refusal of another body under it."""
    if item.idempotency is not None:
        try:
            check_replay(holder, item.idempotency)
        except BucketError as reused:
            return reused
    return _Taken(holder, item.warnings, replayed=True)


def _fit_to_be_told(error: BucketError) -> BucketError:
    """What nobody outside can mend is logged and told as a bare ``internal``, as for a single submit."""
    if error.http_status < _SERVER_FAULT or error.retryable:
        return error
    structlog.get_logger().error("an item of a batch failed", exc_info=error)
    return InternalError()
