"""What lists of executions can be asked for, and where a row stands in one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.domain.execution import Execution
from shared.domain.status import ExecutionStatus


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in a list: executions made in one millisecond stand in the order of their ids."""

    created_at: datetime
    id: str


def place_of(execution: Execution) -> Place:
    """Answer where an execution stands in a list."""
    return Place(execution.created_at, execution.id)


class Order(StrEnum):
    """Which executions a list begins with."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which executions a list shows: those to which all of it applies, in ``order`` of their making.

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
    order: Order = Order.NEWEST
