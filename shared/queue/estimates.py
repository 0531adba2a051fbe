"""Queue estimates: the position of a message in its list (queue depth ahead of it), and its drain rate (rate of drain).

No counter counts the messages that pass. But a list is first in, first out: all messages that arrived before the offer
time of the oldest one have left. So regular samples of the length and of that offer time give both counts:

    departed(now) = arrived(at the oldest message's offer time)        arrived(now) = departed(now) + length(now)

Arrivals are assumed to be even between two samples, and before the first sample too. The results are estimates, at
O(log n) of a short history; there is none for a message that has left its list.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HISTORY_MAX: Final = 512
RATE_WINDOW_MS: Final = 60_000
RATE_WINDOW_MIN_MS: Final = 500
_WHOLE_MESSAGE: Final = 0.5


@dataclass(frozen=True, slots=True)
class OldestMessage:
    """The oldest message of a list (its right end)."""

    execution_id: str
    offered_at_ms: int


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """A sample of a list with its history; times are milliseconds of the store's clock."""

    length: int = 0
    oldest: OldestMessage | None = None
    drain_rate_per_ms: float | None = None
    """Drain rate: messages that leave per millisecond; None if none was seen to leave while others waited."""
    sampled_at_ms: Sequence[int] = (0,)
    arrived_counts: Sequence[float] = (0.0,)
    departed_count: float = 0.0

    def messages_ahead(self, execution_id: str, offered_at_ms: int) -> int | None:
        """Estimate how many messages are ahead of this run's, offered at ``offered_at_ms``; None if it no longer waits.

        0 is returned only for the oldest message itself: offer times are often equal, and out of order by up to a
        tenth of a second.
        """
        if self.oldest is None:
            return None
        if self.oldest.execution_id == execution_id:
            return 0
        if offered_at_ms > self.sampled_at_ms[-1]:
            return self.length  # offered after the sample: behind all messages of the sample
        if offered_at_ms < self.oldest.offered_at_ms:
            return None
        ahead = round(_interpolate(self.sampled_at_ms, self.arrived_counts, offered_at_ms) - self.departed_count)
        return min(max(ahead, 1), max(self.length - 1, 1))


class QueueHistory:
    """The history of one list, from which its drain rate follows; only one thread may call it."""

    def __init__(self) -> None:
        self._sampled_at_ms: list[int] = []
        self._arrived_counts: list[float] = []
        self._departed_count = 0.0
        self._departures: list[tuple[int, float]] = []
        self._oldest: OldestMessage | None = None

    def observe(self, now_ms: int, length: int, oldest: OldestMessage | None) -> QueueSnapshot:
        """Add a sample, return the snapshot of the list; ``oldest`` is None if there is none, or it is unreadable."""
        # The first sample, or the store's clock was set back.
        if not self._sampled_at_ms or now_ms <= self._sampled_at_ms[-1]:
            self._sampled_at_ms = [now_ms - 1 if oldest is None else min(oldest.offered_at_ms, now_ms - 1)]
            self._arrived_counts, self._departed_count, self._departures = [0.0], 0.0, []
        self._departed_count = max(self._departed_count, self._arrived_counts[-1] - length)
        if length and oldest is not None and oldest != self._oldest:  # while it is the same, nothing has left
            arrived_by_oldest = _interpolate(self._sampled_at_ms, self._arrived_counts, oldest.offered_at_ms)
            self._departed_count = max(self._departed_count, arrived_by_oldest)
            if self._sampled_at_ms[-1] < oldest.offered_at_ms < now_ms:
                # No waiting message arrived before the oldest one.
                self._append(oldest.offered_at_ms, self._departed_count)
        self._oldest = oldest
        self._append(now_ms, self._departed_count + length)
        drain_rate = self._drain_rate(now_ms, length)
        sampled_at_ms, arrived_counts = tuple(self._sampled_at_ms), tuple(self._arrived_counts)
        oldest = oldest if length else None
        return QueueSnapshot(length, oldest, drain_rate, sampled_at_ms, arrived_counts, self._departed_count)

    def _append(self, now_ms: int, arrived: float) -> None:
        self._sampled_at_ms.append(now_ms)
        self._arrived_counts.append(arrived)
        if len(self._sampled_at_ms) > HISTORY_MAX:  # of the older half every second sample is dropped
            half = HISTORY_MAX // 2
            self._sampled_at_ms[:half] = self._sampled_at_ms[:half:2]
            self._arrived_counts[:half] = self._arrived_counts[:half:2]

    def _drain_rate(self, now_ms: int, length: int) -> float | None:
        """Return the drain rate per millisecond while messages waited: an empty list says nothing about its workers."""
        if length == 0:
            self._departures.clear()
            return None
        self._departures.append((now_ms, self._departed_count))
        while now_ms - self._departures[0][0] > RATE_WINDOW_MS:
            self._departures.pop(0)
        since_ms, departed_before = self._departures[0]
        departed = self._departed_count - departed_before
        # Interpolated counts differ by rounding: without a whole message nothing has left.
        if now_ms - since_ms < RATE_WINDOW_MIN_MS or departed < _WHOLE_MESSAGE:
            return None
        return departed / (now_ms - since_ms)


def _interpolate(sampled_at_ms: Sequence[int], counts: Sequence[float], at_ms: int) -> float:
    """Return how many messages had arrived before ``at_ms``, by linear interpolation between two samples."""
    index = bisect_right(sampled_at_ms, at_ms)
    if index == 0:
        return counts[0]
    if index == len(sampled_at_ms):
        return counts[-1]
    before_ms, after_ms = sampled_at_ms[index - 1], sampled_at_ms[index]
    fraction = (at_ms - before_ms) / (after_ms - before_ms)
    return counts[index - 1] + (counts[index] - counts[index - 1]) * fraction
