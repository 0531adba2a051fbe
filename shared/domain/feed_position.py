"""Pure part of the change feed: positions (offsets) in it, and the selection of the changes of one page."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

BATCH_CHANGES_MAX: Final = 250
"""The most changes in a batch; the offset of a cursor within a batch is always smaller."""


@dataclass(frozen=True, slots=True)
class FeedPosition:
    """A position in the feed: before change number ``offset`` of batch ``batch_number`` of the epoch ``epoch``.

    At the end of a batch the position is before the first change of the next batch, even if that does not exist
    yet; so a position stays valid when the batches before it are deleted. All changes made before ``as_of`` are
    before this position.
    """

    epoch: str
    batch_number: int
    offset: int
    as_of: datetime


@dataclass(frozen=True, slots=True)
class FeedEnd:
    """The end of the feed: number and time of the last batch, and the watermark up to which the feed is complete."""

    epoch: str
    batch_number: int
    written_at: datetime
    watermark_at: datetime

    @property
    def position(self) -> FeedPosition:
        """The position after all changes of the feed."""
        return FeedPosition(self.epoch, self.batch_number + 1, 0, self.watermark_at)


def coalesce(execution_ids: Iterable[str]) -> tuple[str, ...]:
    """Return each execution once, at its last place: earlier ones would show the same latest state."""
    return tuple(dict.fromkeys(reversed(tuple(execution_ids))))[::-1]


def select_page(execution_ids: Sequence[str], visible_ids: Container[str], limit: int) -> tuple[tuple[str, ...], int]:
    """Return the executions of a page, each at its last place, and the number of changes that the page covers.

    Only those in ``visible_ids`` count towards ``limit``; the page ends before the first execution that exceeds it.
    """
    page: dict[str, None] = {}
    for index, execution_id in enumerate(execution_ids):
        if execution_id in visible_ids:
            if execution_id not in page and len(page) == limit:
                return tuple(page), index
            page.pop(execution_id, None)
            page[execution_id] = None
    return tuple(page), len(execution_ids)
