"""Submits of many runs: batches that keep to the server's limits in count and in bytes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from bucket_client.calls import Patience, call_json, encode, pause_before_repeat, warn_of
from bucket_client.effects import Flow, Request, Sleep
from bucket_client.errors import BucketError, Invalid, error_of_problem
from bucket_client.execution import Execution
from bucket_client.settings import ClientSettings

ITEMS_MAX: Final = 500
BYTES_MAX: Final = 1024 * 1024
_ENVELOPE: Final = (b'{"items":[', b"]}")
_ACCEPTED: Final = 202
_REFUSED_FOR_NOW: Final = 503

Outcome = Execution | BucketError
"""What became of one item: the accepted run, or the error that refused it."""


def submit_many(settings: ClientSettings, items: Iterable[Mapping[str, Any]]) -> Flow[list[Execution | BucketError]]:
    """Submit many runs and return what became of each, in order: the accepted run, or the error that refused it.

    An item is a body of ``/run-basket`` and may have an ``idempotency_key``; the client makes one otherwise.
    """
    outcomes: list[Outcome] = []
    for batch in split(items):
        outcomes += yield from submit_batch(settings, batch)
    return outcomes


def split(items: Iterable[Mapping[str, Any]]) -> Iterator[list[bytes | Invalid]]:
    """Yield the items as JSON in batches, each within the server's limits; what cannot be JSON stands as its error."""
    batch: list[bytes | Invalid] = []
    size = 0
    for item in items:
        encoded = encode_item(item)
        item_size = len(encoded) + 1 if isinstance(encoded, bytes) else 0
        if batch and (len(batch) == ITEMS_MAX or size + item_size > BYTES_MAX - len(b"".join(_ENVELOPE))):
            yield batch
            batch, size = [], 0
        batch.append(encoded)
        size += item_size
    if batch:
        yield batch


def encode_item(item: Mapping[str, Any]) -> bytes | Invalid:
    """Return an item as JSON, with an idempotency key; or the error if it cannot be JSON."""
    try:
        return encode({"idempotency_key": uuid.uuid4().hex} | dict(item))
    except Invalid as error:
        return error


def submit_batch(
    settings: ClientSettings, batch: Sequence[bytes | Invalid], patience: Patience | None = None
) -> Flow[list[Outcome]]:
    """Submit the items of one batch; those that the server could not take now are sent again with the same keys."""
    patience = patience or Patience.for_one_call(settings)
    outcomes: list[Outcome | None] = [item if isinstance(item, Invalid) else None for item in batch]
    left = {index: item for index, item in enumerate(batch) if isinstance(item, bytes)}
    attempt = 0
    while left:
        replies = yield from _send(settings, list(left.values()), patience)
        for index, outcome in zip(list(left), replies, strict=True):
            outcomes[index] = outcome
            if not isinstance(outcome, BucketError) or outcome.status != _REFUSED_FOR_NOW:
                del left[index]
        pause_s = pause_before_repeat(settings, attempt, None)
        is_last = patience.retries is not None and attempt >= patience.retries
        if is_last or settings.clock() + pause_s > patience.due_by:
            break
        attempt += 1
        if left:
            yield Sleep(pause_s)
    return [outcome for outcome in outcomes if outcome is not None]


def _send(settings: ClientSettings, items: Sequence[bytes], patience: Patience) -> Flow[list[Outcome]]:
    """Send one batch. If it is refused as a whole for what it contains, halve it until the faulty item stands alone."""
    request = Request("POST", "/run-basket/batch", body=b",".join(items).join(_ENVELOPE))
    try:
        reply = yield from call_json(settings, request, patience)
    except Invalid as error:
        if len(items) == 1:
            return [error]
        middle = len(items) // 2
        first = yield from _send(settings, items[:middle], patience)
        second = yield from _send(settings, items[middle:], patience)
        return [*first, *second]
    return [_outcome_of(item) for item in reply["items"]]


def _outcome_of(item: Mapping[str, Any]) -> Outcome:
    warn_of(item)
    if item["status"] == _ACCEPTED:
        return Execution.from_json({**item, "status": item["execution_status"]})
    return error_of_problem(item, item["status"])
