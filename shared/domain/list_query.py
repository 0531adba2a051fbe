"""Queries for lists of executions: filters, order, and the positions (keyset pagination) of rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.domain.execution import Execution
from shared.domain.status import ExecutionStatus


@dataclass(frozen=True, slots=True, order=True)
class ListPosition:
    """A position in a list (keyset): executions of the same millisecond are in the order of their ids."""

    at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class ListRow:
    """A row of a list, with its position."""

    execution: Execution
    position: ListPosition


class ListOrder(StrEnum):
    """The order of a list: by time of creation, or (``updated``) by time of the last change, the oldest change first.

    In the order of changes, an execution that changes while the list is read appears once more, at the end. A write in
    progress may get a position before one that was already read: the change feed shows such changes.
    """

    NEWEST = "newest"
    OLDEST = "oldest"
    UPDATED = "updated"


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A query for a list: the executions that match all filters, in ``order``.

    No ``statuses`` means all; of ``idempotency_keys`` any may match. ``created_after`` and ``created_before`` are
    exclusive bounds, ``updated_since`` is inclusive.
    """

    statuses: tuple[ExecutionStatus, ...] = ()
    basket: str | None = None
    tag: str | None = None
    request_id: str | None = None
    retry_of: str | None = None
    reference: str | None = None
    error_code: str | None = None
    only_dead_letters: bool = False
    idempotency_keys: tuple[str, ...] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    updated_since: datetime | None = None
    order: ListOrder = ListOrder.NEWEST
