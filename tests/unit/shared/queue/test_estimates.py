"""How many are ahead in a list and how fast it drains, told from its length and its oldest stamp alone."""

from __future__ import annotations

import random
from collections import deque

import pytest

from shared.queue.estimates import HISTORY_MAX, OldestMessage, QueueHistory, QueueSnapshot

OURS = "ours"


class List:
    """A list of messages, first in, first out, and who looks at it."""

    def __init__(self) -> None:
        self.stamps: deque[int] = deque()
        self.flow = QueueHistory()
        self.now_ms = 1_000_000

    def turn(self, come: int, go: int, ms: int = 100) -> QueueSnapshot:
        """Let time pass in which some come and some go, and look."""
        self.stamps.extend(self.now_ms + ms * place // max(come, 1) for place in range(come))
        for _ in range(min(go, len(self.stamps))):
            self.stamps.popleft()
        self.now_ms += ms
        return self.look()

    def look(self) -> QueueSnapshot:
        oldest = OldestMessage("other", self.stamps[0]) if self.stamps else None
        return self.flow.observe(self.now_ms, len(self.stamps), oldest)

    def ahead(self, stamp_ms: int) -> int:
        """How many really are ahead of the last message of this stamp."""
        return sum(stamp <= stamp_ms for stamp in self.stamps) - 1


def test_a_steady_line_is_told_exactly_and_so_is_its_rate() -> None:
    line = List()
    for _ in range(50):
        seen = line.turn(come=40, go=10)
    for place in (100, 700, 1_400):
        stamp_ms = line.stamps[place]
        assert seen.messages_ahead(OURS, stamp_ms) == pytest.approx(place, abs=41)
    assert seen.drain_rate_per_ms == pytest.approx(0.1, rel=0.1)


def test_bursts_are_told_within_what_came_between_two_looks() -> None:
    chance = random.Random(3)
    line = List()
    for _ in range(300):
        seen = line.turn(come=chance.choice([0, 0, 0, 90]), go=chance.randrange(40))
        if len(line.stamps) > 2:
            stamp_ms = line.stamps[chance.randrange(1, len(line.stamps))]
            told = seen.messages_ahead(OURS, stamp_ms)
            assert told is not None
            assert abs(told - line.ahead(stamp_ms)) <= 95
            assert 1 <= told < len(line.stamps)


def test_a_line_that_was_there_before_the_first_look_is_taken_to_be_even() -> None:
    line = List()
    line.stamps.extend(line.now_ms - 1_000 + place for place in range(1_000))
    seen = line.look()
    assert seen.messages_ahead(OURS, line.now_ms - 500) == pytest.approx(500, abs=5)
    assert seen.drain_rate_per_ms is None


def test_only_the_next_one_has_nobody_ahead() -> None:
    flow = QueueHistory()
    stamp_ms = 5_000
    assert flow.observe(6_000, 3, OldestMessage(OURS, stamp_ms)).messages_ahead(OURS, stamp_ms) == 0
    assert flow.observe(6_100, 3, OldestMessage("other", stamp_ms)).messages_ahead(OURS, stamp_ms) == 1
    assert flow.observe(6_200, 3, OldestMessage("other", stamp_ms)).messages_ahead(OURS, 6_300) == 3


def test_who_has_left_the_list_is_told_nothing() -> None:
    flow = QueueHistory()
    assert flow.observe(6_000, 3, OldestMessage("other", 5_000)).messages_ahead(OURS, 4_999) is None
    assert flow.observe(6_100, 0, None).messages_ahead(OURS, 5_500) is None
    assert flow.observe(6_200, 4, None).messages_ahead(OURS, 5_500) is None, "the oldest cannot be read"


def test_an_idle_or_a_standing_line_tells_no_rate() -> None:
    line = List()
    assert [line.turn(come=5, go=5).drain_rate_per_ms for _ in range(20)] == [None] * 20
    assert [line.turn(come=5, go=0).drain_rate_per_ms for _ in range(20)] == [None] * 20


def test_the_time_in_which_a_line_was_empty_does_not_slow_its_rate() -> None:
    line = List()
    for _ in range(20):
        line.turn(come=20, go=10)
    for _ in range(200):
        line.turn(come=0, go=10)
    for _ in range(10):
        seen = line.turn(come=20, go=10)
    assert seen.drain_rate_per_ms == pytest.approx(0.1, rel=0.2)


def test_a_burst_into_an_empty_line_is_not_taken_for_one_that_moves() -> None:
    line = List()
    line.turn(come=0, go=0)
    line.stamps.extend(line.now_ms + 90 + place for place in range(9))
    line.now_ms += 100
    for _ in range(10):
        line.now_ms += 100
        seen = line.look()
    assert seen.drain_rate_per_ms is None
    assert all(1 <= (seen.messages_ahead(OURS, stamp_ms) or 0) <= 8 for stamp_ms in line.stamps)


def test_a_clock_set_back_begins_anew() -> None:
    line = List()
    for _ in range(20):
        line.turn(come=10, go=2)
    line.now_ms -= 10_000
    line.stamps = deque(stamp - 10_000 for stamp in line.stamps)
    seen = line.look()
    assert seen.messages_ahead(OURS, line.stamps[80]) == pytest.approx(80, abs=5)


def test_a_history_stays_short_and_reaches_back() -> None:
    line = List()
    for _ in range(2 * HISTORY_MAX):
        seen = line.turn(come=2, go=1)
    assert len(seen.sampled_at_ms) <= HISTORY_MAX
    assert seen.sampled_at_ms[0] <= line.stamps[0]
    assert seen.messages_ahead(OURS, line.stamps[500]) == pytest.approx(500, abs=10)
