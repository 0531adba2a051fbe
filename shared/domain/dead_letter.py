"""A dead letter: a failed run that may be sent again by hand, or a message that could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.domain.execution import RunError


class DeadLetterKind(StrEnum):
    """What the dead letter is: a failed run, or an unreadable message."""

    EXECUTION = "execution"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True, order=True)
class DeadLetterPosition:
    """The position (keyset) of a dead letter in the list, which is read from the newest to the oldest."""

    finished_at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class DeadLetterQuery:
    """The filters of a list of dead letters; a message has no agent and no basket, and the code ``internal``."""

    error_code: str | None = None
    agent: str | None = None
    basket: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter; ``execution_id`` and ``basket_name`` are None for a message, because it could not be read.

    Such a message belongs to the default integrator, because nobody knows whose it was.
    """

    id: str
    kind: DeadLetterKind
    finished_at: datetime
    error: RunError
    integrator: str
    execution_id: str | None = None
    basket_name: str | None = None
    retried_as: tuple[str, ...] = ()
    message: str | None = None
    occurrences: int = 1
    """How often the same message was received."""
    requeued_as: str | None = None
    """The run as which it was sent again; like a dismissed one, it is no longer in the list."""
    dismissed_at: datetime | None = None

    @property
    def position(self) -> DeadLetterPosition:
        """The position in the list."""
        return DeadLetterPosition(self.finished_at, self.id)
