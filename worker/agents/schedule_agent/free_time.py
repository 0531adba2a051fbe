"""The free time of a plan: gaps in minutes, which are blocked bit by bit."""

from __future__ import annotations

from typing import Final

PART_MIN: Final = 15
"""A task that may be split gets no part shorter than this, but for its rest."""


class FreeTime:
    """Gaps ``(begin, end)`` in order, none of which touch the time that was blocked."""

    def __init__(self) -> None:
        self._gaps: list[tuple[int, int]] = []

    def add(self, begin: int, end: int) -> None:
        """Add a gap after all others."""
        self._gaps.append((begin, end))

    def block(self, begin: int, end: int) -> None:
        """Take the time between ``begin`` and ``end`` out of the gaps."""
        gaps = []
        for start, stop in self._gaps:
            if stop <= begin or start >= end:
                gaps.append((start, stop))
                continue
            gaps += [gap for gap in ((start, begin), (end, stop)) if gap[0] < gap[1]]
        self._gaps = gaps

    def find(self, minutes: int, first: int, last: int | None, *, splittable: bool) -> list[tuple[int, int]] | None:
        """Return where ``minutes`` fit between ``first`` and ``last``, as parts; None if they do not."""
        parts: list[tuple[int, int]] = []
        rest = minutes
        for begin, end in self._within(first, last):
            length = end - begin
            if length >= rest:
                return [*parts, (begin, begin + rest)]
            if splittable and length >= PART_MIN:
                parts.append((begin, end))
                rest -= length
        return None

    def left(self, first: int, last: int | None) -> tuple[int, int]:
        """Return the longest gap and the sum of all gaps between ``first`` and ``last``, in minutes."""
        lengths = [end - begin for begin, end in self._within(first, last)]
        return max(lengths, default=0), sum(lengths)

    def _within(self, first: int, last: int | None) -> list[tuple[int, int]]:
        within = ((max(begin, first), end if last is None else min(end, last)) for begin, end in self._gaps)
        return [gap for gap in within if gap[0] < gap[1]]
