"""A free worker takes the next bell itself, rescues first, and drops what is no bell."""

from __future__ import annotations

import pytest
import redis

from shared.queue.bell import AGAIN, FIRST, Bell, list_of, ring
from shared.queue.take import Taker, UnreadableMessage
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
    assert [taker.take() for _ in range(4)] == [rescued, first, second, None]


def test_queues_that_are_not_ones_own_are_left_alone(client: redis.Redis) -> None:
    bell = rung(client, "a", "default", FIRST)
    assert Taker(client, ["long"]).take() is None
    assert Taker(client, ["default"]).take() == bell


def test_what_is_no_bell_is_taken_off_and_told(client: redis.Redis) -> None:
    client.lpush(list_of("default", FIRST), b"not json")
    taker = Taker(client, ["default"])
    with pytest.raises(UnreadableMessage) as unreadable:
        taker.take()
    assert unreadable.value.raw == b"not json"
    assert taker.take() is None
