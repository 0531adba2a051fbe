"""Accepts the items of a batch: one look for their keys, one insert and one pipeline for all, an outcome for each.

A key that the batch itself was sent with is kept with each run at its item's place, so that the same batch again makes
no second run of any, and another batch under that key is refused as a whole. If no item can be taken because a store
is away or the backlog is full, the whole is refused as a single submit would be, for callers that repeat by status.
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

from api.hints.view_hints import ViewHints
from api.http import problems
from api.http.body_policy import check_policy
from api.http.request_body import fingerprint, validation_error
from api.http.schema_fields import ITEMS_MAX
from api.submission.acceptor import check_same_fingerprint
from api.submission.replies import accepted_body
from api.submission.run_builder import NewRun, RunBuilder, submit_warnings
from api.submission.schemas import RUN_BASKET_KEYS, RunBasketSchema
from api.submission.submission import Submission, is_idempotency_key
from api.submission.withdrawals import Withdrawals
from shared import faults
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC_INTEGRATOR, Execution, Idempotency
from shared.domain.lifecycle.decision import Decision
from shared.errors import BucketError, InternalError, OutcomeUnknown, Unavailable, ValidationFailed

_SUBMIT_ROUTE: Final = "/run-basket"
_KEY_FIELD: Final = "idempotency_key"
_ITEM_KEYS: Final = (*RUN_BASKET_KEYS, _KEY_FIELD)
_ACCEPTED: Final = 202
_FIRST_SERVER_ERROR: Final = 500
# Between a batch's key and the place of an item stands what no caller can write into a key of his own.
_KEY_SEPARATOR: Final = "\x1f"


@dataclass(frozen=True, slots=True)
class _AcceptedItem:
    """A run that an item was given; ``is_replay`` if it was accepted before."""

    run: Execution
    warnings: Sequence[str]
    is_replay: bool = False


_ItemOutcome = _AcceptedItem | BucketError


class BatchAcceptor:
    """Makes executions of batches."""

    def __init__(
        self, services: Services, builder: RunBuilder, withdrawals: Withdrawals, view_hints: ViewHints
    ) -> None:
        self._services = services
        self._builder = builder
        self._withdrawals = withdrawals
        self._view_hints = view_hints
        self._schema = RunBasketSchema()

    def accept(self, batch: Submission) -> flask.Response:
        """Return what became of each item; an item's own idempotency key wins over the one derived from the batch's.

        Raises IdempotencyKeyReused if the key belongs to another batch, and Unavailable, Overloaded or OutcomeUnknown
        if that is what became of all items.
        """
        derived = [] if batch.idempotency is None else _derived_keys(batch.idempotency)
        raw_items = batch.raw["items"]
        items = [self._parse_item(batch, raw, key) for raw, key in zip_longest(raw_items, derived[: len(raw_items)])]
        outcomes = self._accept_items(items, self._find_key_holders(items, derived))
        first = outcomes[0]
        if isinstance(first, (Unavailable, OutcomeUnknown)) and all(type(each) is type(first) for each in outcomes):
            raise first
        return self._build_response(outcomes, batch)

    def _parse_item(self, batch: Submission, raw: Any, derived: Idempotency | None) -> Submission | BucketError:
        """Return one item as a submission of its own, or the error that refuses it."""
        try:
            if not isinstance(raw, dict):
                fault = {"pointer": "", "message": "not an object"}
                raise ValidationFailed("an item must be a JSON object", details=[fault])
            check_policy(raw)
            body = {name: value for name, value in raw.items() if name != _KEY_FIELD}
            key = _parse_item_key(raw)
            loaded = self._schema.load(body)
            return replace(
                batch,
                raw=raw,
                body=loaded,
                idempotency=derived if key is None else Idempotency(key, fingerprint(_SUBMIT_ROUTE, body)),
                warnings=submit_warnings(raw, loaded, _ITEM_KEYS),
            )
        except marshmallow.ValidationError as wrong:
            return validation_error({"json": wrong.messages})
        except BucketError as refused:
            return refused

    def _accept_items(
        self, items: Sequence[Submission | BucketError], holders: Mapping[str, Execution]
    ) -> list[_ItemOutcome]:
        outcomes: dict[int, _ItemOutcome] = {}
        fresh: dict[int, tuple[Submission, Decision]] = {}
        first_of_key: dict[str, int] = {}
        away: Unavailable | None = None  # if a store does not reply to one item, hundreds do not wait for it too
        for at, item in enumerate(items):
            if isinstance(item, BucketError):
                outcomes[at] = item
                continue
            key = None if item.idempotency is None else item.idempotency.key
            if key is not None and key in holders:
                outcomes[at] = _replay_item(holders[key], item)
            elif key not in first_of_key:
                built = away or self._builder.basket_run(item, already_queued=len(fresh))
                if isinstance(built, NewRun):
                    fresh[at] = (item, built.decision)
                    if key is not None:
                        first_of_key[key] = at
                else:
                    outcomes[at] = built
                    away = built if isinstance(built, Unavailable) else away
        outcomes |= self._store_new(fresh)
        for at, item in enumerate(items):
            if at not in outcomes and isinstance(item, Submission) and item.idempotency is not None:
                first = outcomes[first_of_key[item.idempotency.key]]
                outcomes[at] = _replay_item(first.run, item) if isinstance(first, _AcceptedItem) else first
        return [outcomes[at] for at in range(len(items))]

    def _find_key_holders(
        self, items: Sequence[Submission | BucketError], derived: Sequence[Idempotency]
    ) -> Mapping[str, Execution]:
        """Return the holders of the items' keys; raises IdempotencyKeyReused if another batch has a ``derived`` one.

        All derived keys count, not only those of this batch's items: another batch may have left a place free by a bad
        item.
        """
        own = [item.idempotency for item in items if isinstance(item, Submission) and item.idempotency is not None]
        keys = {each.key for each in (*own, *derived)}
        holders = self._services.queries.find_by_idempotency_keys(PUBLIC_INTEGRATOR, keys) if keys else {}
        for each in derived:
            if each.key in holders:
                check_same_fingerprint(holders[each.key], each)
        return holders

    def _store_new(self, fresh: Mapping[int, tuple[Submission, Decision]]) -> dict[int, _ItemOutcome]:
        """Store and offer the new runs; a run that was stored under a key meanwhile is replayed."""
        outcomes: dict[int, _ItemOutcome] = {}
        new: list[Decision] = []
        stored = self._services.queries.create_many([decision for _, decision in fresh.values()])
        for (at, (item, decision)), run in zip(fresh.items(), stored, strict=True):
            if isinstance(run, BucketError):
                outcomes[at] = self._withdraw_if_unconfirmed(decision.execution, run)
            elif run.id != decision.execution.id:
                outcomes[at] = _replay_item(run, item)
            else:
                outcomes[at] = _AcceptedItem(run, item.warnings)
                new.append(decision)
        if new:
            faults.reach("api.inserted")
            self._services.publisher.publish_accepted(new)
        return outcomes

    def _withdraw_if_unconfirmed(self, run: Execution, error: BucketError) -> BucketError:
        if isinstance(error, OutcomeUnknown) and run.idempotency is None:
            self._withdrawals.add(run)
        return error

    def _build_response(self, outcomes: Sequence[_ItemOutcome], batch: Submission) -> flask.Response:
        body: dict[str, Any] = {
            "items": [self._item_body(outcome, batch) for outcome in outcomes],
            "accepted": sum(isinstance(outcome, _AcceptedItem) for outcome in outcomes),
            "rejected": sum(isinstance(outcome, BucketError) for outcome in outcomes),
        }
        if batch.warnings:
            body["warnings"] = batch.warnings
        headers = {"Cache-Control": "no-store"}
        replays = [outcome.is_replay for outcome in outcomes if isinstance(outcome, _AcceptedItem)]
        if replays and all(replays):
            headers["Idempotency-Replayed"] = "true"
        return flask.Response(orjson.dumps(body), _ACCEPTED, headers, mimetype="application/json")

    def _item_body(self, outcome: _ItemOutcome, batch: Submission) -> dict[str, Any]:
        if isinstance(outcome, BucketError):
            return problems.problem_body(_public_error(outcome), batch.request_id)
        run = outcome.run
        hints = self._view_hints.of_execution(run)
        body = accepted_body(run, hints.poll_after_ms, batch.prefix, outcome.warnings)
        body |= {"status": _ACCEPTED, "execution_status": run.status}
        return body | ({"idempotency_replayed": True} if outcome.is_replay else {})


def _derived_keys(of_batch: Idempotency) -> Sequence[Idempotency]:
    """Return the keys of all places that a batch may have, each with the fingerprint of the whole."""
    return [replace(of_batch, key=f"{of_batch.key}{_KEY_SEPARATOR}{at}") for at in range(ITEMS_MAX)]


def _parse_item_key(item: Mapping[str, Any]) -> str | None:
    key = item.get(_KEY_FIELD)
    if key is not None and not (isinstance(key, str) and is_idempotency_key(key)):
        fault = {"pointer": f"/{_KEY_FIELD}", "message": "must be 1 to 255 printable ASCII characters"}
        raise ValidationFailed(f"{_KEY_FIELD} {fault['message']}", details=[fault])
    return key


def _replay_item(holder: Execution, item: Submission) -> _ItemOutcome:
    """Return the run that holds an item's key already, or the error that refuses another body under it."""
    if item.idempotency is not None:
        try:
            check_same_fingerprint(holder, item.idempotency)
        except BucketError as reused:
            return reused
    return _AcceptedItem(holder, item.warnings, is_replay=True)


def _public_error(error: BucketError) -> BucketError:
    """Return ``error``, or a bare ``internal`` if no caller can mend it: that is logged, as for a single submit."""
    if error.http_status < _FIRST_SERVER_ERROR or error.retryable:
        return error
    structlog.get_logger().error("an item of a batch failed", exc_info=error)
    return InternalError()
