"""The change feed's pure part: places in it, and which of the changes that were read one page shows."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

BATCH_MAX: Final = 250
"""How many changes a batch may hold; a cursor's count within a batch never reaches it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the feed: before the change ``taken`` of batch ``number``, in the epoch of that name.

    Where a batch ends the place is before the first change of the next one, whether or not that exists yet; so a
    place outlives the batches before it. All that happened before ``as_of`` lies before this place.
    """

    epoch: str
    number: int
    taken: int
    as_of: datetime


@dataclass(frozen=True, slots=True)
class End:
    """The feed's last batch: its number, when it was written, and the moment ``through`` which the feed is whole."""

    epoch: str
    number: int
    at: datetime
    through: datetime

    @property
    def place(self) -> Place:
        """The place behind all changes that the feed holds."""
        return Place(self.epoch, self.number + 1, 0, self.through)


def coalesced(execution_ids: Iterable[str]) -> tuple[str, ...]:
    """Answer each execution once, at its latest place: earlier ones would tell the same latest state."""
    latest: dict[str, None] = {}
    for execution_id in execution_ids:
        latest.pop(execution_id, None)
        latest[execution_id] = None
    return tuple(latest)


def cut(execution_ids: Sequence[str], shown: Container[str], limit: int) -> tuple[tuple[str, ...], int]:
    """Answer the executions of a page, each at its latest place, and how many of the changes the page takes in.

    Only those in ``shown`` count towards ``limit``; the page ends before the first one that would be too many.
    """
    counted: set[str] = set()
    taken = len(execution_ids)
    for index, execution_id in enumerate(execution_ids):
        if execution_id in shown and execution_id not in counted:
            if len(counted) == limit:
                taken = index
                break
            counted.add(execution_id)
    return coalesced(each for each in execution_ids[:taken] if each in shown), taken
