"""What lists show of executions, and what they can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.domain.execution import RunError, Step
from shared.domain.status import ExecutionStatus


@dataclass(frozen=True, slots=True)
class Standing:
    """How an execution stands, without what it was given, what it said and what it made."""

    id: str
    basket_name: str
    status: ExecutionStatus
    steps: Mapping[str, Step]
    created_at: datetime
    rev: int
    tags: tuple[str, ...] = ()
    error: RunError | None = None
    retry_of: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def done(self) -> bool:
        """True once nothing about this execution will change."""
        return self.status.is_final

    @property
    def place(self) -> Place:
        """Where it stands in a list."""
        return Place(self.created_at, self.id)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in a list: executions made in one millisecond stand in the order of their ids."""

    created_at: datetime
    id: str


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
