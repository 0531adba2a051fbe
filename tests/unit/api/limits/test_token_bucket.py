"""The arithmetic of a bucket in one process, and of its settling with Redis."""

from __future__ import annotations

from api.limits.token_bucket import TokenBucket
from shared.limits import LimitClass, RateLimit


def bucket() -> TokenBucket:
    return TokenBucket(LimitClass.SUBMIT, "key:a", RateLimit(per_s=2, burst=10))


def test_it_refills_up_to_its_burst_and_never_for_a_clock_that_goes_back() -> None:
    full = bucket()
    assert full.level(100.0) == 10
    full.spend(6, 100.0)
    assert full.level(101.0) == 6
    assert full.level(99.0) == 6
    assert full.level(200.0) == 10


def test_a_request_that_was_held_fills_it_no_second_time() -> None:
    used = bucket()
    used.spend(10, 100.0)
    assert used.level(103.0) == 6
    used.spend(1, 100.0)
    assert used.level(103.0) == 5


def test_what_is_owed_takes_its_time() -> None:
    owing = bucket()
    owing.spend(14, 0.0)
    assert owing.level(0.0) == -4
    assert owing.wait_s(1) == 2.5
    assert owing.level(2.5) == 1


def test_what_is_spent_while_it_settles_is_not_lost() -> None:
    settling = bucket()
    settling.spend(3, 0.0)
    charge = settling.begin_settling()
    assert (charge.name, charge.spent, charge.cost) == ("submit:key:a", 3, 0)
    settling.spend(2, 0.0)
    settling.settle(5.0, 0.0)  # other processes have spent two
    assert settling.level(0.0) == 3
    assert settling.begin_settling().spent == 2


def test_it_asks_redis_if_it_takes_more_than_its_share_of_what_is_left() -> None:
    asking = bucket()
    assert not asking.must_settle(1, 0.0), "a new one is full"
    assert asking.must_settle(2, 0.0), "an eighth of ten"
    asking.spend(1, 0.0)
    assert asking.must_settle(1, 0.0), "with what is not settled yet"
    asking.settle(7.0, 0.0)
    assert asking.must_settle(1, 0.0), "an eighth of what was left"


def test_its_share_of_the_refill_needs_no_redis_and_is_spent_once() -> None:
    slow = TokenBucket(LimitClass.SUBMIT, "key:a", RateLimit(per_s=2, burst=100))
    slow.spend(1, 0.0)
    assert not slow.settles_itself(1_000.0), "Redis has never been asked"
    assert slow.begin_settling().spent == 1
    slow.settle(2.0, 0.0)  # others have spent most of it
    slow.spend(1, 4.0)
    assert not slow.settles_itself(3.9), "an eighth of two a second"
    assert slow.must_settle(1, 7.9)
    assert not slow.must_settle(1, 8.0), "two of the sixteen that came"
    assert slow.settles_itself(4.0)
    assert slow.unsettled == 0
    slow.spend(1, 4.0)
    assert not slow.settles_itself(7.9), "it counts from when it last was"
    slow.spend(-2, 8.0)
    assert not slow.settles_itself(1_000.0), "what is given back, Redis must know"


def test_after_a_long_pause_processes_share_one_burst() -> None:
    paused = bucket()
    paused.settle(10.0, 0.0)
    assert paused.must_settle(2, 3_600.0), "more than an eighth of ten"
    paused.spend(2, 3_600.0)
    assert not paused.settles_itself(3_600.0)
