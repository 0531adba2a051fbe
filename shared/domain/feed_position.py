"""The change feed's pure part: places in it, and which of the changes that were read one page shows."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

BATCH_CHANGES_MAX: Final = 250
"""How many changes a batch may hold; a cursor's count within a batch never reaches it."""


@dataclass(frozen=True, slots=True)
class FeedPosition:
    """A place in the feed: before the change ``taken`` of batch ``number``, in the epoch of that name.

    Where a batch ends the place is before the first change of the next one, whether or not that exists yet; so a
    place outlives the batches before it. All that happened before ``as_of`` lies before this place.
    """

    epoch: str
    batch_number: int
    offset: int
    as_of: datetime


@dataclass(frozen=True, slots=True)
class FeedEnd:
    """The feed's last batch: its number, when it was written, and the moment ``through`` which the feed is whole."""

    epoch: str
    batch_number: int
    written_at: datetime
    watermark_at: datetime

    @property
    def position(self) -> FeedPosition:
        """The place behind all changes that the feed holds."""
        return FeedPosition(self.epoch, self.batch_number + 1, 0, self.watermark_at)


def coalesce(execution_ids: Iterable[str]) -> tuple[str, ...]:
    """Answer each execution once, at its latest place: earlier ones would tell the same latest state."""
    latest: dict[str, None] = {}
    for execution_id in execution_ids:
        latest.pop(execution_id, None)
        latest[execution_id] = None
    return tuple(latest)


def select_page(execution_ids: Sequence[str], visible_ids: Container[str], limit: int) -> tuple[tuple[str, ...], int]:
    """Answer the executions of a page, each at its latest place, and how many of the changes the page takes in.

    Only those in ``shown`` count towards ``limit``; the page ends before the first one that would be too many.
    """
    counted: set[str] = set()
    taken = len(execution_ids)
    for index, execution_id in enumerate(execution_ids):
        if execution_id in visible_ids and execution_id not in counted:
            if len(counted) == limit:
                taken = index
                break
            counted.add(execution_id)
    return coalesce(each for each in execution_ids[:taken] if each in visible_ids), taken
