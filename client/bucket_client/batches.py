"""Submits of many runs: batches that keep to the server's limits in count and in bytes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Final

from bucket_client.calls import Patience, call, encode, object_of, pause_before_repeat, warn_of
from bucket_client.effects import Flow, Request, Sleep
from bucket_client.errors import BucketError, Invalid, ServerFault, error_of_problem
from bucket_client.execution import Execution
from bucket_client.settings import ClientSettings

ITEMS_MAX: Final = 500
BYTES_MAX: Final = 1024 * 1024
_ENVELOPE: Final = (b'{"items":[', b"]}")
_ACCEPTED: Final = 202
_REFUSED_FOR_NOW: Final = 503


@dataclass(frozen=True, slots=True)
class Item:
    """One submit of a batch as JSON, and its idempotency key; or the error if it cannot be JSON."""

    encoded: bytes | Invalid
    key: str


def submit_many(settings: ClientSettings, items: Iterable[Mapping[str, Any]]) -> Flow[list[Execution | BucketError]]:
    """Submit many runs and return what became of each, in order: the accepted run, or the error that refused it.

    An item is a body of ``/run-basket`` and may have an ``idempotency_key``; the client makes one otherwise. If Bucket
    cannot be reached on the way, the items that are left have that error; the ``idempotency_key`` of each is in it.
    """
    outcomes: list[Execution | BucketError] = []
    outage: BucketError | None = None
    for batch in split(map(item_of_body, items)):
        if outage is None:
            batch_outcomes = yield from submit_batch(settings, batch)
        else:
            batch_outcomes = [_for_item(outage, item) for item in batch]
        outcomes += batch_outcomes
        outage = outage or next((outcome for outcome in batch_outcomes if is_outage(outcome)), None)  # type: ignore[assignment]
    for outcome in outcomes:
        if isinstance(outcome, Execution):
            warn_of(outcome.raw, outcome)
    return outcomes


def item_of_body(body: Mapping[str, Any]) -> Item:
    """Return a body of ``/run-basket`` as an item, with an idempotency key."""
    key = body.get("idempotency_key")
    key = uuid.uuid4().hex if key is None else key
    try:
        return Item(encode({**body, "idempotency_key": key}), str(key))
    except Invalid as error:
        return Item(error, str(key))


def split(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield the items in batches, each within the server's limits in count and in bytes."""
    batch: list[Item] = []
    size = 0
    for item in items:
        item_size = len(item.encoded) + 1 if isinstance(item.encoded, bytes) else 0
        if batch and (len(batch) == ITEMS_MAX or size + item_size > BYTES_MAX - len(b"".join(_ENVELOPE))):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item_size
    if batch:
        yield batch


def submit_batch(
    settings: ClientSettings, batch: Sequence[Item], patience: Patience | None = None
) -> Flow[list[Execution | BucketError]]:
    """Submit one batch; items that the server could not take now are sent again with the same keys."""
    patience = patience or Patience.for_one_call(settings)
    outcomes: dict[int, Execution | BucketError] = {
        index: item.encoded for index, item in enumerate(batch) if isinstance(item.encoded, Invalid)
    }
    left = {index: item for index, item in enumerate(batch) if index not in outcomes}
    attempt = 0
    while left:
        sent, retry_after_s = yield from _send(settings, list(left.values()), patience)
        outcomes |= dict(zip(list(left), sent, strict=True))
        left = {index: item for index, item in left.items() if _is_refused_for_now(outcomes[index])}
        pause_s = pause_before_repeat(settings, attempt, retry_after_s)
        is_last = patience.retries is not None and attempt >= patience.retries
        if not left or is_last or settings.clock() + pause_s > patience.due_by:
            break
        attempt += 1
        yield Sleep(pause_s)
    return [outcomes[index] for index in range(len(batch))]


def is_outage(outcome: Execution | BucketError) -> bool:
    """Return whether an error says nothing of its item: Bucket was not reached, failed, or knows no such key."""
    return isinstance(outcome, BucketError) and (outcome.status is None or outcome.status not in range(400, 500))


def _send(
    settings: ClientSettings, items: Sequence[Item], patience: Patience
) -> Flow[tuple[list[Execution | BucketError], float | None]]:
    """Send one batch; return what became of each item, and the Retry-After of the reply.

    A batch that is refused as a whole for what it contains is halved until the faulty item stands alone.
    """
    bodies = (item.encoded for item in items if isinstance(item.encoded, bytes))
    request = Request("POST", "/run-basket/batch", body=b",".join(bodies).join(_ENVELOPE))
    try:
        reply = yield from call(settings, request, patience)
        replies = object_of(reply, ["items"])["items"]
        if len(replies) != len(items):
            raise ServerFault(f"the reply has {len(replies)} outcomes for {len(items)} items", status=reply.status)
        return [_outcome_of(item, body) for item, body in zip(items, replies, strict=True)], reply.retry_after_s
    except Invalid as error:
        if len(items) == 1:
            return [_for_item(error, items[0])], None
        middle = len(items) // 2
        first, _ = yield from _send(settings, items[:middle], patience)
        second, retry_after_s = yield from _send(settings, items[middle:], patience)
        return [*first, *second], retry_after_s
    except BucketError as error:
        return [_for_item(error, item) for item in items], error.retry_after_s


def _outcome_of(item: Item, body: Mapping[str, Any]) -> Execution | BucketError:
    if body.get("status") == _ACCEPTED:
        return Execution.from_json({**body, "status": body.get("execution_status")})
    return _for_item(error_of_problem(body, int(body.get("status") or 0)), item)


def _for_item(error: BucketError, item: Item) -> BucketError:
    """Return an error of its own for an item, with the key for a safe repeat."""
    own = copy(error)
    own.idempotency_key = item.key
    return own


def _is_refused_for_now(outcome: Execution | BucketError) -> bool:
    return isinstance(outcome, BucketError) and outcome.status == _REFUSED_FOR_NOW and outcome.attempts == 1
