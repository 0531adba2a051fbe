"""A free worker takes the next bell itself, rescues first, and drops what is no bell."""

from __future__ import annotations

import pytest
import redis

from shared.queue.dequeue import Dequeuer
from shared.queue.message import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER, TaskMessage, enqueue, list_key
from tests.builders import NOON


def rung(client: redis.Redis, step: str, queue: str, priority: int) -> TaskMessage:
    bell = TaskMessage("public", "1763700000_89ce24ad1b2c3d4e", step, NOON)
    enqueue(client, bell, queue, priority)
    return bell


def test_rescues_go_first_and_then_the_oldest(client: redis.Redis) -> None:
    first = rung(client, "a", "default", PRIORITY_FIRST_OFFER)
    second = rung(client, "b", "default", PRIORITY_FIRST_OFFER)
    rescued = rung(client, "c", "long", PRIORITY_REOFFER)
    taker = Dequeuer(client, ["default", "long"])
    assert [list(taker.dequeue().messages) for _ in range(4)] == [[rescued], [first], [second], []]


def test_queues_that_are_not_ones_own_are_left_alone(client: redis.Redis) -> None:
    bell = rung(client, "a", "default", PRIORITY_FIRST_OFFER)
    assert not Dequeuer(client, ["long"]).dequeue(8).messages
    assert Dequeuer(client, ["default"]).dequeue(8).messages == [bell]


def test_what_is_no_bell_is_taken_off_and_told(client: redis.Redis) -> None:
    client.lpush(list_key("default", PRIORITY_FIRST_OFFER), b"not json")
    bell = rung(client, "a", "default", PRIORITY_FIRST_OFFER)
    taken = Dequeuer(client, ["default"]).dequeue()
    assert (list(taken.messages), taken.unreadable) == ([], [b"not json"])
    assert list(Dequeuer(client, ["default"]).dequeue().messages) == [bell]


def test_several_are_taken_where_many_first_offers_wait_and_no_more_than_a_share(client: redis.Redis) -> None:
    bells = [rung(client, f"s{number}", "default", PRIORITY_FIRST_OFFER) for number in range(40)]
    taker = Dequeuer(client, ["default", "long"], consumers=4)
    assert taker.dequeue(8).messages == bells[:8]
    assert taker.dequeue(4).messages == bells[8:12]
    left = [len(taker.dequeue(8).messages) for _ in range(9)]
    assert left == [7, 6, 4, 3, 2, 2, 1, 1, 1], "one's share among four of what waits, and at least one"


def test_a_child_without_siblings_leaves_half_to_other_workers(client: redis.Redis) -> None:
    for number in range(7):
        rung(client, f"s{number}", "default", PRIORITY_FIRST_OFFER)
    taker = Dequeuer(client, ["default"], consumers=1)
    assert [len(taker.dequeue(8).messages) for _ in range(4)] == [4, 2, 1, 0]


@pytest.mark.parametrize(
    ("queue", "priority"), [("default", PRIORITY_REOFFER), ("long", PRIORITY_FIRST_OFFER), ("long", PRIORITY_REOFFER)]
)
def test_what_is_long_or_came_back_is_taken_one_by_one(client: redis.Redis, queue: str, priority: int) -> None:
    bells = [rung(client, f"s{number}", queue, priority) for number in range(40)]
    assert Dequeuer(client, ["default", "long"]).dequeue(8).messages == bells[:1]
