"""Batch submit: one read of the idempotency keys, one insert and one Redis pipeline for all items, one outcome each.

The idempotency key of a batch is stored with each of its runs, together with the index of the item. So the same batch
sent again makes no second run of any item, and another batch under the same key is refused as a whole. If no item can
be accepted because a store is away, the backlog is too long or a quota is used up, the whole batch is refused as a
single submit would be: callers retry by status code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, Final

import flask
import orjson
import structlog

from api.auth.basket_allow_list import check_basket_allowed
from api.hints.poll_hints import ViewHints
from api.http import problems
from api.http.body_key_checks import check_policy
from api.http.request_body import load_body
from api.http.schema_fields import ITEMS_MAX
from api.limits.quotas import release_quota
from api.submission.acceptor import AcceptedRun, replay_of
from api.submission.replies import accepted_body
from api.submission.run_builder import NewRun, RunBuilder
from api.submission.schemas import BatchItemSchema
from api.submission.submission import (
    Submission,
    fingerprint,
    ignored_and_default_warnings,
    parse_idempotency_key,
)
from api.submission.withdrawals import Withdrawals
from shared import fault_injection
from shared.bootstrap import Services
from shared.domain.execution import Execution, Idempotency, batch_item_key
from shared.domain.lifecycle.decision import Decision
from shared.errors import BucketError, InternalError, OutcomeUnknown, QuotaExceeded, Unavailable, ValidationFailed

_SUBMIT_ROUTE: Final = "/run-basket"
_KEY_FIELD: Final = "idempotency_key"


_ItemOutcome = AcceptedRun | BucketError


class BatchAcceptor:
    """Creates the executions of a batch, and its reply."""

    def __init__(
        self, services: Services, builder: RunBuilder, withdrawals: Withdrawals, view_hints: ViewHints
    ) -> None:
        self._services = services
        self._builder = builder
        self._withdrawals = withdrawals
        self._view_hints = view_hints
        self._schema = BatchItemSchema()

    def accept(self, batch: Submission) -> flask.Response:
        """Return the reply with the outcome of each item.

        An item's own idempotency key takes precedence over the key that is derived from the batch's. Raises
        IdempotencyKeyReused if the key belongs to another batch, and Unavailable, Overloaded, QuotaExceeded or
        OutcomeUnknown if all items have that outcome.
        """
        derived = [] if batch.idempotency is None else _derived_keys(batch.idempotency)
        raw_items = batch.body["items"]
        items = [self._parse_item(batch, raw, key) for raw, key in zip_longest(raw_items, derived[: len(raw_items)])]
        outcomes = self._accept_items(items, self._find_key_holders(batch.integrator, items, derived))
        first = outcomes[0]
        if isinstance(first, (Unavailable, OutcomeUnknown, QuotaExceeded)) and set(map(type, outcomes)) == {
            type(first)
        }:
            raise first
        return self._build_response(outcomes, items, batch)

    def _parse_item(self, batch: Submission, raw: Any, derived: Idempotency | None) -> Submission | BucketError:
        """Return one item as a submission of its own, or the error that refuses it."""
        try:
            if not isinstance(raw, dict):
                fault = {"pointer": "", "message": "not an object"}
                raise ValidationFailed("an item must be a JSON object", details=[fault])
            check_policy(raw)
            single = {name: value for name, value in raw.items() if name != _KEY_FIELD}
            key = parse_idempotency_key(raw.get(_KEY_FIELD), "pointer", f"/{_KEY_FIELD}")
            loaded = load_body(self._schema, single)
            check_basket_allowed(batch.caller, loaded.get("basket_name"))
            return replace(
                batch,
                body=loaded,
                idempotency=derived if key is None else Idempotency(key, fingerprint(_SUBMIT_ROUTE, single)),
                warnings=[*loaded.warnings, *ignored_and_default_warnings(raw)],
            )
        except BucketError as error:
            return error

    def _accept_items(
        self, items: Sequence[Submission | BucketError], holders: Mapping[str, Execution]
    ) -> list[_ItemOutcome]:
        """Return the outcome of each item, in order; ``holders`` are the runs that have an item's key already.

        Items with the same key share the run of the first of them.
        """
        outcomes: dict[int, _ItemOutcome] = {}
        new_items: dict[int, Decision] = {}
        first_of_key: dict[str, int] = {}
        # If a store does not reply for one item, hundreds must not wait for it too.
        unavailable: Unavailable | None = None
        for index, item in enumerate(items):
            if isinstance(item, BucketError):
                outcomes[index] = item
                continue
            key = None if item.idempotency is None else item.idempotency.key
            if key is not None and key in holders:
                outcomes[index] = _try_replay(holders[key], item.idempotency)
            elif key not in first_of_key:
                new_run = unavailable or self._builder.basket_run(item, already_queued=len(new_items))
                if isinstance(new_run, NewRun):
                    new_items[index] = new_run.decision
                    if key is not None:
                        first_of_key[key] = index
                else:
                    outcomes[index] = new_run
                    unavailable = new_run if isinstance(new_run, Unavailable) else unavailable
        outcomes |= self._store_new(new_items)
        release_quota()
        for index, item in enumerate(items):
            if index not in outcomes and isinstance(item, Submission) and item.idempotency is not None:
                first = outcomes[first_of_key[item.idempotency.key]]
                outcomes[index] = _try_replay(first.run, item.idempotency) if isinstance(first, AcceptedRun) else first
        return [outcomes[index] for index in range(len(items))]

    def _find_key_holders(
        self, integrator: str, items: Sequence[Submission | BucketError], derived: Sequence[Idempotency]
    ) -> Mapping[str, Execution]:
        """Return the runs that hold the items' keys; raises IdempotencyKeyReused if another batch has a derived key.

        All derived keys are checked, not only those of this batch's items: in another batch a bad item may have left
        an index without a run.
        """
        own = [item.idempotency for item in items if isinstance(item, Submission) and item.idempotency is not None]
        keys = {idempotency.key for idempotency in (*own, *derived)}
        holders = self._services.queries.find_by_idempotency_keys(integrator, keys) if keys else {}
        for idempotency in derived:
            if idempotency.key in holders:
                replay_of(holders[idempotency.key], idempotency)
        return holders

    def _store_new(self, new_items: Mapping[int, Decision]) -> dict[int, _ItemOutcome]:
        """Store and offer the new runs; if a key was stored by another request meanwhile, its run is replayed."""
        outcomes: dict[int, _ItemOutcome] = {}
        stored_decisions: list[Decision] = []
        stored = self._services.queries.create_many([*new_items.values()])
        for (index, decision), result in zip(new_items.items(), stored, strict=True):
            run = decision.execution
            if isinstance(result, BucketError):
                if isinstance(result, OutcomeUnknown) and run.idempotency is None:
                    self._withdrawals.add(run)
                outcomes[index] = result
            elif result.id == run.id:
                outcomes[index] = AcceptedRun(result)
                stored_decisions.append(decision)
            else:
                outcomes[index] = _try_replay(result, run.idempotency)
        if stored_decisions:
            fault_injection.reach("api.inserted")
            self._services.publisher.publish_accepted(stored_decisions)
        return outcomes

    def _build_response(
        self, outcomes: Sequence[_ItemOutcome], items: Sequence[Submission | BucketError], batch: Submission
    ) -> flask.Response:
        accepted = [outcome for outcome in outcomes if isinstance(outcome, AcceptedRun)]
        body: dict[str, Any] = {
            "items": [self._item_body(outcome, item, batch) for outcome, item in zip(outcomes, items, strict=True)],
            "accepted": len(accepted),
            "rejected": len(outcomes) - len(accepted),
        }
        if batch.warnings:
            body["warnings"] = batch.warnings
        headers = {"Cache-Control": "no-store"}
        if accepted and all(outcome.is_replay for outcome in accepted):
            headers["Idempotency-Replayed"] = "true"
        return flask.Response(orjson.dumps(body), 202, headers, mimetype="application/json")

    def _item_body(self, outcome: _ItemOutcome, item: Submission | BucketError, batch: Submission) -> dict[str, Any]:
        if isinstance(outcome, BucketError):
            return problems.problem_body(_public_error(outcome), batch.request_id)
        run = outcome.run
        hints = self._view_hints.of_execution(run)
        warnings = () if isinstance(item, BucketError) else item.warnings
        body = accepted_body(run, hints.poll_after_ms, batch.prefix, warnings)
        body |= {"status": 202, "execution_status": run.status}
        return body | ({"idempotency_replayed": True} if outcome.is_replay else {})


def _derived_keys(batch_key: Idempotency) -> Sequence[Idempotency]:
    """Return the keys of all item indexes that a batch may have, each with the fingerprint of the whole batch."""
    return [replace(batch_key, key=batch_item_key(batch_key.key, index)) for index in range(ITEMS_MAX)]


def _try_replay(holder: Execution, idempotency: Idempotency | None) -> _ItemOutcome:
    """Return the run that holds an item's key, or the error that refuses another body under that key."""
    try:
        return replay_of(holder, idempotency)
    except BucketError as error:
        return error


def _public_error(error: BucketError) -> BucketError:
    """Return ``error``; a server fault that no caller can correct is logged and replaced by ``internal``."""
    if not error.is_internal:
        return error
    structlog.get_logger().error("an item of a batch failed", exc_info=error)
    return InternalError()
