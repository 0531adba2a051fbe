"""A bulk action: to cancel, retry, erase or dismiss all runs that match a filter. It is itself an execution.

Its body is parsed here for the API, which refuses a faulty one, and for the worker, which gets it as the run's input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from shared.domain.definitions.basket import BULK_AGENT_NAME, SEQUENTIAL, Basket, BasketStep
from shared.domain.execution import batch_item_key
from shared.domain.list_query import ListOrder, ListQuery
from shared.domain.status import ExecutionStatus
from shared.errors import ValidationFailed
from shared.json_pointer import format_pointer
from shared.suggestions import closest_matches
from shared.timestamps import parse_rfc3339

BULK_ACTION: Final = "bulk_action"  # the kind of its execution
LIMIT_MAX: Final = 1_000_000
TEXT_MAX_CHARS: Final = 500
BULK_TIMEOUT_S: Final = 6 * 3_600.0
BULK_BASKET: Final = Basket(
    BULK_AGENT_NAME, SEQUENTIAL, (BasketStep(BULK_AGENT_NAME, BULK_AGENT_NAME, timeout_s=BULK_TIMEOUT_S),)
)


class BulkActionKind(StrEnum):
    """What is done to each run."""

    CANCEL = "cancel"
    RETRY = "retry"
    ERASE = "erase"
    DISMISS = "dismiss"
    """Take its dead letter out of the list; the run stays as it is."""


_FINAL: Final = tuple(status for status in ExecutionStatus if status.is_final)
ACTS_ON: Final[Mapping[BulkActionKind, Sequence[ExecutionStatus]]] = MappingProxyType(
    {
        BulkActionKind.CANCEL: tuple(status for status in ExecutionStatus if not status.is_final),
        BulkActionKind.RETRY: (ExecutionStatus.FAILED, ExecutionStatus.CANCELLED),
        BulkActionKind.ERASE: _FINAL,
        BulkActionKind.DISMISS: (ExecutionStatus.FAILED,),
    }
)
"""The statuses of the runs that an action can be done to: only such runs match."""

TEXT_FILTERS: Final = ("basket", "tag", "request_id", "retry_of", "reference", "error_code")
TIME_FILTERS: Final = ("created_after", "created_before", "updated_since")
DEAD_LETTER: Final = "dead_letter"
FILTERS: Final = ("status", *TEXT_FILTERS, *TIME_FILTERS, DEAD_LETTER)
BODY_KEYS: Final = ("action", "filter", "dry_run", "limit")


@dataclass(frozen=True, slots=True)
class BulkAction:
    """What to do to which runs: those that match ``query``, the oldest first, at most ``limit``."""

    kind: BulkActionKind
    query: ListQuery
    is_dry_run: bool = False
    limit: int = LIMIT_MAX

    def bounded_by(self, created_at: datetime) -> BulkAction:
        """Return the action for runs that were created before its own execution: neither itself, nor what it makes."""
        before = self.query.created_before
        bound = created_at if before is None else min(before, created_at)
        return replace(self, query=replace(self.query, created_before=bound))


def bulk_item_key(action_id: str, execution_id: str) -> str:
    """Return the idempotency key of the run by which an action retries ``execution_id``: no caller can send it."""
    return batch_item_key(action_id, execution_id)


def parse_bulk_action(body: Mapping[str, Any]) -> BulkAction:
    """Return the bulk action that a body asks for; raises ValidationFailed with the place of each fault."""
    faults = _Faults()
    faults.check_known(body, BODY_KEYS, "")
    action = body.get("action")
    if not (isinstance(action, str) and action in set(BulkActionKind)):
        faults.add(("action",), f"must be {', '.join(BulkActionKind)}{_hint(action, tuple(BulkActionKind))}")
    filters = body.get("filter")
    if not (isinstance(filters, dict) and filters):
        faults.add(("filter",), f"must be an object with at least one of {', '.join(FILTERS)}")
        filters = {}
    faults.check_known(filters, FILTERS, "filter")
    texts = {name: faults.parse(filters, name, _text) for name in TEXT_FILTERS if name in filters}
    times = {name: faults.parse(filters, name, parse_rfc3339_text) for name in TIME_FILTERS if name in filters}
    only_dead_letters = DEAD_LETTER in filters and bool(faults.parse(filters, DEAD_LETTER, _true))
    statuses = faults.parse(filters, "status", _statuses) if "status" in filters else tuple(ExecutionStatus)
    dry_run, limit = body.get("dry_run", False), body.get("limit", LIMIT_MAX)
    if isinstance(limit, float) and limit.is_integer():  # a whole number by JSON Schema, which the contract is in
        limit = int(limit)
    if not isinstance(dry_run, bool):
        faults.add(("dry_run",), "must be true or false")
    if not (isinstance(limit, int) and not isinstance(limit, bool) and 1 <= limit <= LIMIT_MAX):
        faults.add(("limit",), f"must be a whole number from 1 to {LIMIT_MAX}")
    faults.raise_if_any()
    kind = BulkActionKind(action)  # type: ignore[arg-type]
    only_dead_letters = only_dead_letters or kind is BulkActionKind.DISMISS
    matching = tuple(status for status in ACTS_ON[kind] if status in statuses)
    if not matching:
        faults.add(("filter", "status"), f"no such run can be the object of {kind}; name {', '.join(ACTS_ON[kind])}")
        faults.raise_if_any()
    query = ListQuery(statuses=matching, only_dead_letters=only_dead_letters, order=ListOrder.OLDEST, **texts, **times)
    return BulkAction(kind, query, dry_run, limit)


class _Faults:
    """The faults of a body, each with its JSON pointer."""

    def __init__(self) -> None:
        self._details: list[dict[str, str]] = []

    def add(self, place: Sequence[str], message: str) -> None:
        self._details.append({"pointer": format_pointer(place), "message": message})

    def check_known(self, value: Mapping[str, Any], known: Sequence[str], within: str) -> None:
        for name in list(value)[:_FAULTS_MAX]:
            if name not in known:
                place = (within, name) if within else (name,)
                self.add(place[:1] if within else (), f"{name[:64]!r} is not known here{_hint(name, known)}")

    def parse(self, filters: Mapping[str, Any], name: str, parse: Callable[[Any], Any]) -> Any:
        try:
            return parse(filters[name])
        except ValueError as error:
            self.add(("filter", name), str(error))
            return ()

    def raise_if_any(self) -> None:
        if self._details:
            summary = "; ".join(f"{each['pointer'] or 'the body'}: {each['message']}" for each in self._details[:3])
            raise ValidationFailed(summary, details=self._details)


_FAULTS_MAX: Final = 20


def _hint(name: object, known: Sequence[str]) -> str:
    matches = closest_matches(name[:64].lower(), known) if isinstance(name, str) else []
    return f"; did you mean {matches[0]}?" if matches else f"; there are {', '.join(known)}"


def _text(value: Any) -> str:
    if not (isinstance(value, str) and 0 < len(value) <= TEXT_MAX_CHARS):
        raise ValueError(f"must be a text of 1 to {TEXT_MAX_CHARS} characters")
    return value


def _true(value: Any) -> bool:
    if value != "true":
        raise ValueError('must be "true", or be left out')
    return True


def parse_rfc3339_text(value: Any) -> datetime:
    """Return the moment that a filter names; raises ValueError."""
    try:
        if isinstance(value, str):
            return parse_rfc3339(value)
    except ValueError:
        pass
    raise ValueError("must be a moment with its offset, such as 2026-11-21T12:00:00Z")


def _statuses(value: Any) -> tuple[ExecutionStatus, ...]:
    words = {word.strip() for word in value.split(",")} if isinstance(value, str) else set()
    if not words or not words <= set(ExecutionStatus):
        raise ValueError(f"must be a text: one or several of {', '.join(ExecutionStatus)}, with commas between")
    return tuple(ExecutionStatus(word) for word in words)
