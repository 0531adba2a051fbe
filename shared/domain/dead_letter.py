"""A dead letter: a run that failed for good but may be sent again by hand, or a message that nobody could read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.domain.execution import RunError


class DeadLetterKind(StrEnum):
    """What died."""

    EXECUTION = "execution"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True, order=True)
class DeadLetterPosition:
    """Where a dead letter stands in the list, which is read from the newest to the oldest."""

    finished_at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter; of a message ``execution_id`` and ``basket_name`` are None, for nobody could read it."""

    id: str
    kind: DeadLetterKind
    finished_at: datetime
    error: RunError
    execution_id: str | None = None
    basket_name: str | None = None
    retried_as: tuple[str, ...] = ()
    message: str | None = None
    occurrences: int = 1
    """How often the same message came."""

    @property
    def position(self) -> DeadLetterPosition:
        """Answer where it stands in the list."""
        return DeadLetterPosition(self.finished_at, self.id)
