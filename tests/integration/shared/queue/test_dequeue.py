"""A free worker takes the next bell itself, rescues first, and drops what is no bell."""

from __future__ import annotations

import pytest
import redis

from shared.queue.dequeue import Taker
from shared.queue.message import AGAIN, FIRST, Bell, list_of, ring
from tests.builders import NOON


def rung(client: redis.Redis, step: str, queue: str, priority: int) -> Bell:
    bell = Bell("public", "1763700000_89ce24ad1b2c3d4e", step, NOON)
    ring(client, bell, queue, priority)
    return bell


def test_rescues_go_first_and_then_the_oldest(client: redis.Redis) -> None:
    first = rung(client, "a", "default", FIRST)
    second = rung(client, "b", "default", FIRST)
    rescued = rung(client, "c", "long", AGAIN)
    taker = Taker(client, ["default", "long"])
    assert [list(taker.take().bells) for _ in range(4)] == [[rescued], [first], [second], []]


def test_queues_that_are_not_ones_own_are_left_alone(client: redis.Redis) -> None:
    bell = rung(client, "a", "default", FIRST)
    assert not Taker(client, ["long"]).take(8).bells
    assert Taker(client, ["default"]).take(8).bells == [bell]


def test_what_is_no_bell_is_taken_off_and_told(client: redis.Redis) -> None:
    client.lpush(list_of("default", FIRST), b"not json")
    bell = rung(client, "a", "default", FIRST)
    taken = Taker(client, ["default"]).take()
    assert (list(taken.bells), taken.unreadable) == ([], [b"not json"])
    assert list(Taker(client, ["default"]).take().bells) == [bell]


def test_several_are_taken_where_many_first_offers_wait_and_no_more_than_a_share(client: redis.Redis) -> None:
    bells = [rung(client, f"s{number}", "default", FIRST) for number in range(40)]
    taker = Taker(client, ["default", "long"], takers=4)
    assert taker.take(8).bells == bells[:8]
    assert taker.take(4).bells == bells[8:12]
    left = [len(taker.take(8).bells) for _ in range(9)]
    assert left == [7, 6, 4, 3, 2, 2, 1, 1, 1], "one's share among four of what waits, and at least one"


def test_a_child_without_siblings_leaves_half_to_other_workers(client: redis.Redis) -> None:
    for number in range(7):
        rung(client, f"s{number}", "default", FIRST)
    taker = Taker(client, ["default"], takers=1)
    assert [len(taker.take(8).bells) for _ in range(4)] == [4, 2, 1, 0]


@pytest.mark.parametrize(("queue", "priority"), [("default", AGAIN), ("long", FIRST), ("long", AGAIN)])
def test_what_is_long_or_came_back_is_taken_one_by_one(client: redis.Redis, queue: str, priority: int) -> None:
    bells = [rung(client, f"s{number}", queue, priority) for number in range(40)]
    assert Taker(client, ["default", "long"]).take(8).bells == bells[:1]
