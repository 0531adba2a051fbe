"""Presence of workers: an entry in Redis that expires by Redis's clock, is renewed, and is removed at the end."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from shared.domain.definitions.unavailability import Unavailability
from shared.live.worker_presence import (
    PRESENCE_TTL_S,
    WorkerPresence,
    encode_report,
    merge_reports,
    present_workers,
    read_presence,
)
from tests.waiting import wait_until


def now_of(client: redis.Redis) -> int:
    seconds: int = client.time()[0]  # type: ignore[index]
    return seconds


def count(client: redis.Redis) -> int:
    return int(read_presence(client)[0])


def unavailable(client: redis.Redis) -> Mapping[str, Unavailability]:
    return merge_reports(read_presence(client)[1:])


def test_a_presence_is_written_counted_and_removed(client: redis.Redis) -> None:
    presence = WorkerPresence(client, "here:1")
    presence.start()
    wait_until(lambda: count(client) == 1, 5, "the presence is there")
    assert client.zscore("workers", "here:1") - now_of(client) <= PRESENCE_TTL_S  # type: ignore[operator]
    presence.stop()
    assert count(client) == 0


def test_a_presence_that_is_not_renewed_expires_and_is_removed_by_another_worker(client: redis.Redis) -> None:
    client.zadd("workers", {"dead:1": now_of(client), "alive:1": now_of(client) + 5})
    assert count(client) == 1
    assert present_workers(client) == ["alive:1"]
    presence = WorkerPresence(client, "here:1")
    presence.start()
    wait_until(lambda: count(client) == 2, 5, "the presence is there")
    assert client.zscore("workers", "dead:1") is None
    presence.stop()


def test_a_missing_redis_does_not_stop_the_presence_thread(absent_redis: redis.Redis) -> None:
    presence = WorkerPresence(absent_redis, "here:1")
    presence.start()
    presence.stop()


UNSET = Unavailability("the required setting KEY is not set", lacks_settings=True)
BROKEN = Unavailability("agent.py cannot be loaded: ImportError")


def announce(client: redis.Redis, name: str, **agents: Unavailability) -> WorkerPresence:
    presence = WorkerPresence(client, name, agents)
    presence.start()
    wait_until(lambda: client.zscore("workers", name) is not None, what=f"{name} is announced")
    return presence


def test_an_agent_is_unavailable_if_every_worker_says_so(client: redis.Redis) -> None:
    assert unavailable(client) == {}
    first = announce(client, "one:1", rates=UNSET, law=UNSET)
    assert unavailable(client) == {"rates": UNSET, "law": UNSET}
    second = announce(client, "two:1", law=BROKEN)
    both = Unavailability(f"{UNSET.reason}; elsewhere: {BROKEN.reason}")
    assert unavailable(client) == {"law": both}  # not for its settings alone
    third = announce(client, "three:1")
    assert unavailable(client) == {}
    assert count(client) == 3
    third.stop()
    second.stop()
    assert unavailable(client) == {"rates": UNSET, "law": UNSET}
    first.stop()
    assert (unavailable(client), client.exists("metrics:unavailable_agents")) == ({}, 0)


def test_a_worker_without_a_report_counts_as_one_that_can_run_all(client: redis.Redis) -> None:
    presence = announce(client, "new:1", rates=UNSET)
    client.zadd("workers", {"of-an-older-release:1": now_of(client) + 15})
    assert (count(client), unavailable(client)) == (2, {})
    presence.stop()


def test_equal_reports_are_sent_once(client: redis.Redis) -> None:
    for number in range(3):
        client.zadd("workers", {f"w:{number}": now_of(client) + 15})
        client.hset("metrics:unavailable_agents", f"w:{number}", encode_report({"rates": UNSET}))
    assert read_presence(client) == [3, encode_report({"rates": UNSET})]


def test_the_report_of_a_worker_that_was_killed_does_not_count_and_is_removed(client: redis.Redis) -> None:
    client.zadd("workers", {"dead:1": now_of(client) - 1})
    client.hset("metrics:unavailable_agents", "dead:1", encode_report({"rates": UNSET}))
    assert unavailable(client) == {}
    announce(client, "here:1").stop()
    assert client.hgetall("metrics:unavailable_agents") == {}


def test_a_report_that_cannot_be_read_makes_no_agent_unavailable() -> None:
    assert merge_reports([encode_report({"rates": UNSET}), b'{"rates": 7}']) == {}
    assert merge_reports([b"no JSON"]) == {}
