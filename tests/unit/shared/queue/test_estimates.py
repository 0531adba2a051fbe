"""Estimates of a queue: the position and the drain rate, from its length and its oldest timestamp alone."""

from __future__ import annotations

import random
from collections import deque

import pytest

from shared.queue.estimates import HISTORY_MAX, RATE_WINDOW_MS, OldestMessage, QueueHistory, QueueSnapshot

OURS = "ours"


class SimulatedQueue:
    """A simulated first-in-first-out queue of messages, and the history that observes it."""

    def __init__(self) -> None:
        self.stamps: deque[int] = deque()
        self.history = QueueHistory()
        self.now_ms = 1_000_000

    def step(self, arrivals: int, departures: int, ms: int = 100) -> QueueSnapshot:
        """Let ``ms`` pass with so many arrivals and departures, and observe."""
        self.stamps.extend(self.now_ms + ms * place // max(arrivals, 1) for place in range(arrivals))
        for _ in range(min(departures, len(self.stamps))):
            self.stamps.popleft()
        self.now_ms += ms
        return self.observe()

    def observe(self) -> QueueSnapshot:
        oldest = OldestMessage("other", self.stamps[0]) if self.stamps else None
        return self.history.observe(self.now_ms, len(self.stamps), oldest)

    def ahead(self, stamp_ms: int) -> int:
        """Return how many messages really are ahead of the last one with this timestamp."""
        return sum(stamp <= stamp_ms for stamp in self.stamps) - 1


def test_position_and_drain_rate_of_a_steady_queue_are_exact() -> None:
    queue = SimulatedQueue()
    for _ in range(50):
        snapshot = queue.step(arrivals=40, departures=10)
    for place in (100, 700, 1_400):
        stamp_ms = queue.stamps[place]
        assert snapshot.messages_ahead(OURS, stamp_ms) == pytest.approx(place, abs=41)
    assert snapshot.drain_rate_per_ms == pytest.approx(0.1, rel=0.1)


def test_positions_in_a_burst_are_right_up_to_the_arrivals_between_two_observations() -> None:
    chance = random.Random(3)
    queue = SimulatedQueue()
    for _ in range(300):
        snapshot = queue.step(arrivals=chance.choice([0, 0, 0, 90]), departures=chance.randrange(40))
        if len(queue.stamps) > 2:
            stamp_ms = queue.stamps[chance.randrange(1, len(queue.stamps))]
            estimate = snapshot.messages_ahead(OURS, stamp_ms)
            assert estimate is not None
            assert abs(estimate - queue.ahead(stamp_ms)) <= 95
            assert 1 <= estimate < len(queue.stamps)


def test_a_queue_from_before_the_first_observation_is_taken_to_be_even() -> None:
    queue = SimulatedQueue()
    queue.stamps.extend(queue.now_ms - 1_000 + place for place in range(1_000))
    snapshot = queue.observe()
    assert snapshot.messages_ahead(OURS, queue.now_ms - 500) == pytest.approx(500, abs=5)
    assert snapshot.drain_rate_per_ms is None


def test_only_the_oldest_message_has_none_ahead() -> None:
    history = QueueHistory()
    stamp_ms = 5_000
    assert history.observe(6_000, 3, OldestMessage(OURS, stamp_ms)).messages_ahead(OURS, stamp_ms) == 0
    assert history.observe(6_100, 3, OldestMessage("other", stamp_ms)).messages_ahead(OURS, stamp_ms) == 1
    assert history.observe(6_200, 3, OldestMessage("other", stamp_ms)).messages_ahead(OURS, 6_300) == 3


def test_a_message_that_has_left_the_queue_has_no_position() -> None:
    history = QueueHistory()
    assert history.observe(6_000, 3, OldestMessage("other", 5_000)).messages_ahead(OURS, 4_999) is None
    assert history.observe(6_100, 0, None).messages_ahead(OURS, 5_500) is None
    assert history.observe(6_200, 4, None).messages_ahead(OURS, 5_500) is None, "the oldest cannot be read"


def test_an_idle_or_a_standing_queue_has_no_drain_rate() -> None:
    queue = SimulatedQueue()
    assert [queue.step(arrivals=5, departures=5).drain_rate_per_ms for _ in range(20)] == [None] * 20
    assert [queue.step(arrivals=5, departures=0).drain_rate_per_ms for _ in range(20)] == [None] * 20


@pytest.mark.parametrize("seed", range(20))
def test_a_part_of_a_message_is_no_departure(seed: int) -> None:
    """Interpolated counts differ by parts of a message; taken for a rate they would mean a wait of centuries."""
    rng, queue = random.Random(seed), SimulatedQueue()
    queue.observe()
    for _ in range(3):
        queue.step(rng.randrange(1, 7), rng.randrange(3), ms=rng.choice([97, 100, 103]))
    rates = [queue.step(0, 0, ms=rng.choice([97, 100, 103])).drain_rate_per_ms for _ in range(800)]
    assert min((rate for rate in rates if rate is not None), default=1) >= 0.5 / RATE_WINDOW_MS
    assert rates[-1] is None


def test_the_time_in_which_a_queue_was_empty_does_not_lower_its_drain_rate() -> None:
    queue = SimulatedQueue()
    for _ in range(20):
        queue.step(arrivals=20, departures=10)
    for _ in range(200):
        queue.step(arrivals=0, departures=10)
    for _ in range(10):
        snapshot = queue.step(arrivals=20, departures=10)
    assert snapshot.drain_rate_per_ms == pytest.approx(0.1, rel=0.2)


def test_a_burst_into_an_empty_queue_is_not_taken_for_one_that_drains() -> None:
    queue = SimulatedQueue()
    queue.step(arrivals=0, departures=0)
    queue.stamps.extend(queue.now_ms + 90 + place for place in range(9))
    queue.now_ms += 100
    for _ in range(10):
        queue.now_ms += 100
        snapshot = queue.observe()
    assert snapshot.drain_rate_per_ms is None
    assert all(1 <= (snapshot.messages_ahead(OURS, stamp_ms) or 0) <= 8 for stamp_ms in queue.stamps)


def test_a_clock_set_back_begins_anew() -> None:
    queue = SimulatedQueue()
    for _ in range(20):
        queue.step(arrivals=10, departures=2)
    queue.now_ms -= 10_000
    queue.stamps = deque(stamp - 10_000 for stamp in queue.stamps)
    snapshot = queue.observe()
    assert snapshot.messages_ahead(OURS, queue.stamps[80]) == pytest.approx(80, abs=5)


def test_a_history_stays_short_and_reaches_back() -> None:
    queue = SimulatedQueue()
    for _ in range(2 * HISTORY_MAX):
        snapshot = queue.step(arrivals=2, departures=1)
    assert len(snapshot.sampled_at_ms) <= HISTORY_MAX
    assert snapshot.sampled_at_ms[0] <= queue.stamps[0]
    assert snapshot.messages_ahead(OURS, queue.stamps[500]) == pytest.approx(500, abs=10)
