"""How many messages are ahead of one in a list, and how fast the list drains: from its length and its oldest stamp.

Nothing counts the messages that pass. But a list is first in, first out: all that arrived before the oldest one's
stamp have left. So whoever looks again and again at the length and at that stamp knows both counts:

    left(now) = arrived(by the oldest one's stamp)        arrived(now) = left(now) + length(now)

Between two looks arrivals are taken to be even, and so are those before the first look. Estimates, at O(log n) of a
short history, and never anything for a message that has left its list.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HISTORY_MAX: Final = 512
RATE_WINDOW_MS: Final = 60_000
RATE_WINDOW_MIN_MS: Final = 500


@dataclass(frozen=True, slots=True)
class OldestMessage:
    """The message at the right end of a list."""

    execution_id: str
    offered_at_ms: int


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """A list as it was when it was looked at; moments in milliseconds of the store's clock."""

    length: int = 0
    oldest: OldestMessage | None = None
    drain_rate_per_ms: float | None = None
    """How many messages leave in a millisecond; None where none was seen to leave while others waited."""
    sampled_at_ms: Sequence[int] = (0,)
    arrived_counts: Sequence[float] = (0.0,)
    departed_count: float = 0.0

    def messages_ahead(self, execution_id: str, offered_at_ms: int) -> int | None:
        """Answer how many messages are ahead of this run's, offered at ``stamp_ms``; None where it waits no more.

        0 only for the very next one: stamps are often equal and lie out of order by a tenth of a second.
        """
        if self.oldest is None:
            return None
        if self.oldest.execution_id == execution_id:
            return 0
        if offered_at_ms > self.sampled_at_ms[-1]:
            return self.length  # offered since: behind all that were there
        if offered_at_ms < self.oldest.offered_at_ms:
            return None
        ahead = round(_interpolate(self.sampled_at_ms, self.arrived_counts, offered_at_ms) - self.departed_count)
        return min(max(ahead, 1), max(self.length - 1, 1))


class QueueHistory:
    """One list's history, for one thread to write."""

    def __init__(self) -> None:
        self._moments: list[int] = []
        self._arrived: list[float] = []
        self._left = 0.0
        self._exits: list[tuple[int, float]] = []

    def observe(self, now_ms: int, length: int, oldest: OldestMessage | None) -> QueueSnapshot:
        """Take in one look; answer the list as it now stands. ``oldest`` is None where it is empty or unreadable."""
        if not self._moments or now_ms <= self._moments[-1]:  # the first look, or the store's clock was set back
            self._begin(now_ms, oldest)
        known = self._arrived[-1]
        if length == 0 or oldest is None:
            self._left = max(known - length, self._left)
        else:
            by_stamp = _interpolate(self._moments, self._arrived, oldest.offered_at_ms)
            self._left = max(self._left, by_stamp, known - length)
            if self._moments[-1] < oldest.offered_at_ms < now_ms:
                self._append(oldest.offered_at_ms, self._left)  # none of those that wait came before the oldest of them
        self._append(now_ms, self._left + length)
        per_ms = self._drain_rate(now_ms, length)
        return QueueSnapshot(
            length, oldest if length else None, per_ms, tuple(self._moments), tuple(self._arrived), self._left
        )

    def _begin(self, now_ms: int, oldest: OldestMessage | None) -> None:
        self._moments = [now_ms - 1 if oldest is None else min(oldest.offered_at_ms, now_ms - 1)]
        self._arrived, self._left, self._exits = [0.0], 0.0, []

    def _append(self, now_ms: int, arrived: float) -> None:
        self._moments.append(now_ms)
        self._arrived.append(arrived)
        if len(self._moments) > HISTORY_MAX:  # the older half is kept half as finely
            half = HISTORY_MAX // 2
            self._moments[:half] = self._moments[:half:2]
            self._arrived[:half] = self._arrived[:half:2]

    def _drain_rate(self, now_ms: int, length: int) -> float | None:
        """Messages that left in a millisecond, while others waited: an idle list tells nothing of its workers."""
        if length == 0:
            self._exits.clear()
            return None
        self._exits.append((now_ms, self._left))
        while now_ms - self._exits[0][0] > RATE_WINDOW_MS:
            self._exits.pop(0)
        since_ms, left = self._exits[0]
        if now_ms - since_ms < RATE_WINDOW_MIN_MS or self._left <= left:
            return None
        return (self._left - left) / (now_ms - since_ms)


def _interpolate(moments: Sequence[int], arrived: Sequence[float], moment: int) -> float:
    """How many had arrived before ``moment``, evenly between two looks."""
    place = bisect_right(moments, moment)
    if place == 0:
        return arrived[0]
    if place == len(moments):
        return arrived[-1]
    since, until = moments[place - 1], moments[place]
    part = (moment - since) / (until - since)
    return arrived[place - 1] + (arrived[place] - arrived[place - 1]) * part
