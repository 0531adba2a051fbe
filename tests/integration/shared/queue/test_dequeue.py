"""Dequeue: a free worker takes the next task message, rescues first, and drops unreadable messages."""

from __future__ import annotations

import pytest
import redis

from shared.domain.execution import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER
from shared.queue.dequeue import Dequeuer
from shared.queue.message import TaskMessage, enqueue, list_key
from tests.builders import NOON


def enqueue_message(client: redis.Redis, step: str, queue: str, priority: int) -> TaskMessage:
    message = TaskMessage("public", "1763700000_89ce24ad1b2c3d4e", step, NOON)
    enqueue(client, message, queue, priority)
    return message


def test_rescues_go_first_and_then_the_oldest(client: redis.Redis) -> None:
    first = enqueue_message(client, "a", "default", PRIORITY_FIRST_OFFER)
    second = enqueue_message(client, "b", "default", PRIORITY_FIRST_OFFER)
    rescued = enqueue_message(client, "c", "long", PRIORITY_REOFFER)
    dequeuer = Dequeuer(client, ["default", "long"])
    assert [list(dequeuer.dequeue().messages) for _ in range(4)] == [[rescued], [first], [second], []]


def test_other_queues_are_left_alone(client: redis.Redis) -> None:
    message = enqueue_message(client, "a", "default", PRIORITY_FIRST_OFFER)
    assert not Dequeuer(client, ["long"]).dequeue(8).messages
    assert Dequeuer(client, ["default"]).dequeue(8).messages == [message]


def test_an_unreadable_message_is_removed_and_reported(client: redis.Redis) -> None:
    client.lpush(list_key("default", PRIORITY_FIRST_OFFER), b"not json")
    message = enqueue_message(client, "a", "default", PRIORITY_FIRST_OFFER)
    dequeued = Dequeuer(client, ["default"]).dequeue()
    assert (list(dequeued.messages), dequeued.unreadable) == ([], [b"not json"])
    assert list(Dequeuer(client, ["default"]).dequeue().messages) == [message]


def test_many_waiting_first_offers_are_taken_several_at_once_up_to_a_share(client: redis.Redis) -> None:
    messages = [enqueue_message(client, f"s{number}", "default", PRIORITY_FIRST_OFFER) for number in range(40)]
    dequeuer = Dequeuer(client, ["default", "long"], consumers=4)
    assert dequeuer.dequeue(8).messages == messages[:8]
    assert dequeuer.dequeue(4).messages == messages[8:12]
    assert dequeuer.dequeue(1).messages == messages[12:13]
    counts = [len(dequeuer.dequeue(8).messages) for _ in range(8)]
    assert counts == [7, 5, 4, 4, 4, 3, 0, 0], "the share of one of four workers, and at least a handful"


def test_a_child_without_siblings_leaves_half_to_other_workers(client: redis.Redis) -> None:
    for number in range(20):
        enqueue_message(client, f"s{number}", "default", PRIORITY_FIRST_OFFER)
    dequeuer = Dequeuer(client, ["default"], consumers=1)
    assert [len(dequeuer.dequeue(16).messages) for _ in range(4)] == [10, 5, 4, 1]


@pytest.mark.parametrize(
    ("queue", "priority"), [("default", PRIORITY_REOFFER), ("long", PRIORITY_FIRST_OFFER), ("long", PRIORITY_REOFFER)]
)
def test_long_and_rescued_steps_are_taken_one_by_one(client: redis.Redis, queue: str, priority: int) -> None:
    messages = [enqueue_message(client, f"s{number}", queue, priority) for number in range(40)]
    assert Dequeuer(client, ["default", "long"]).dequeue(8).messages == messages[:1]


def test_a_message_comes_with_the_copy_of_its_run_if_there_is_one(client: redis.Redis) -> None:
    copied = enqueue_message(client, "a", "default", PRIORITY_FIRST_OFFER)
    missing = TaskMessage("public", "1763700001_89ce24ad1b2c3d4e", "b", NOON)
    enqueue(client, missing, "default", PRIORITY_FIRST_OFFER)
    client.lpush(list_key("default", PRIORITY_FIRST_OFFER), b'{"root_id":"%"}')
    client.set(f"<{copied.execution_id}>", b"the copy")
    dequeuer = Dequeuer(client, ["default"], copy_affixes=("<", ">"))
    found = [dequeuer.dequeue() for _ in range(3)]
    assert [list(each.messages) for each in found] == [[copied], [missing], []]
    assert [list(each.copies) for each in found] == [[b"the copy"], [], []]
