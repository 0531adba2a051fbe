"""What lists of executions can be asked for, and where a row stands in one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.domain.execution import Execution
from shared.domain.status import ExecutionStatus


@dataclass(frozen=True, slots=True, order=True)
class ListPosition:
    """A place in a list: executions of one millisecond stand in the order of their ids."""

    at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class ListRow:
    """A row of a list, and where it stands in it."""

    execution: Execution
    position: ListPosition


class ListOrder(StrEnum):
    """Which executions a list begins with: by when they were made, or (``updated``) with what changed longest ago.

    One that changes while its list is read in the order of changes comes once more, at its end. What is being written
    at this moment may come to stand before a place that has been passed: the feed tells of it.
    """

    NEWEST = "newest"
    OLDEST = "oldest"
    UPDATED = "updated"


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which executions a list shows: those to which all of it applies, in ``order``.

    No ``statuses`` are all. ``created_after`` and ``created_before`` are not themselves within, ``updated_since`` is.
    """

    statuses: tuple[ExecutionStatus, ...] = ()
    basket: str | None = None
    tag: str | None = None
    request_id: str | None = None
    retry_of: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    updated_since: datetime | None = None
    order: ListOrder = ListOrder.NEWEST
