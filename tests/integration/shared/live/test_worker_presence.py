"""Presence of workers: an entry in Redis that expires by Redis's clock, is renewed, and is removed at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import redis

from shared.clock import boottime_s
from shared.domain.definitions.unavailability import Unavailability
from shared.live.presence.presence_entry import TTL_S, RunningSlot, WorkerInfo, WorkerPool, decode_pools
from shared.live.presence.reconciler_presence import ReconcilerPresence
from shared.live.presence.worker_presence import (
    PRESENCE_RENEW_EVERY_S,
    WorkerPresence,
    encode_report,
    merge_reports,
    present_workers,
    read_fleet,
    read_presence,
)
from tests.waiting import wait_until


def now_of(client: redis.Redis) -> int:
    seconds: int = client.time()[0]  # type: ignore[index]
    return seconds


def count(client: redis.Redis) -> int:
    return int(read_presence(client)[0])


def unavailable(client: redis.Redis) -> Mapping[str, Unavailability]:
    return merge_reports(read_presence(client)[1])


def test_a_presence_is_written_counted_and_removed(client: redis.Redis) -> None:
    presence = WorkerPresence(client, "here:1")
    presence.start()
    wait_until(lambda: count(client) == 1, 5, "the presence is there")
    assert client.zscore("workers", "here:1") - now_of(client) <= TTL_S  # type: ignore[operator]
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
    assert read_presence(client) == [3, [encode_report({"rates": UNSET})], [b"", 3]]


def test_the_report_of_a_worker_that_was_killed_does_not_count_and_is_removed(client: redis.Redis) -> None:
    client.zadd("workers", {"dead:1": now_of(client) - 1})
    client.hset("metrics:unavailable_agents", "dead:1", encode_report({"rates": UNSET}))
    assert unavailable(client) == {}
    announce(client, "here:1").stop()
    assert client.hgetall("metrics:unavailable_agents") == {}


def test_a_report_that_cannot_be_read_makes_no_agent_unavailable() -> None:
    assert merge_reports([encode_report({"rates": UNSET}), b'{"rates": 7}']) == {}
    assert merge_reports([b"no JSON"]) == {}


INFO = WorkerInfo("here", 1, "9.9", ("long",), 3, 1_000)
SLOT = RunningSlot("acme", "1700000000_0123456789abcdef", "s1", "sleeper", 2_000)


def announce_info(client: redis.Redis, name: str, info: Callable[[], WorkerInfo | None]) -> WorkerPresence:
    presence = WorkerPresence(client, name, describe=info)
    presence.start()
    wait_until(lambda: client.zscore("workers", name) is not None, what=f"{name} is announced")
    return presence


def test_the_fleet_says_what_each_worker_is_and_what_its_slots_run(client: redis.Redis) -> None:
    presence = announce_info(client, "here:1", lambda: replace(INFO, running=(SLOT,)))
    client.zadd("workers", {"of-an-older-release:1": now_of(client) + 15})
    here, older = read_fleet(client).workers
    assert (here.name, here.info) == ("here:1", replace(INFO, running=(SLOT,)))
    assert here.heartbeat_ms is not None
    assert abs(here.heartbeat_ms / 1_000 - now_of(client)) < 5
    assert (older.name, older.heartbeat_ms, older.info) == ("of-an-older-release:1", None, None)
    presence.stop()
    assert client.exists("metrics:workers") == 0


def test_workers_are_counted_by_their_queues_and_one_of_an_older_release_for_each(client: redis.Redis) -> None:
    presences = [
        announce_info(client, "a:1", lambda: INFO),
        announce_info(client, "b:1", lambda: replace(INFO, pid=2)),
        announce_info(client, "c:1", lambda: replace(INFO, queues=("default",), slots=8)),
    ]
    client.zadd("workers", {"older:1": now_of(client) + 15})
    client.zadd("workers", {"broken:1": now_of(client) + 15})
    client.hset("metrics:workers", "broken:1", b"no entry")
    pools = decode_pools(read_presence(client)[2])
    assert set(pools) == {
        WorkerPool(("long",), 3, 2), WorkerPool(("default",), 8, 1), WorkerPool(None, 0, 1), WorkerPool(None, 0, 1)
    }  # fmt: skip
    assert [pool.serves("long") for pool in pools if pool.queues is None] == [True, True]
    for presence in presences:
        presence.stop()


def test_a_change_of_what_runs_is_announced_within_two_seconds(client: redis.Redis) -> None:
    running: list[RunningSlot] = []
    presence = announce_info(client, "here:1", lambda: replace(INFO, running=tuple(running)))
    running.append(SLOT)

    def is_shown() -> bool:
        [worker] = read_fleet(client).workers
        return worker.info is not None and worker.info.running == (SLOT,)

    wait_until(is_shown, PRESENCE_RENEW_EVERY_S - 2, "what runs is shown before the next renewal")
    presence.stop()


def test_the_entry_of_a_worker_that_was_killed_is_removed_also_after_its_name(client: redis.Redis) -> None:
    client.hset("metrics:workers", "dead:1", INFO.pool + b"\n1\n" + INFO.body)  # an older release removed the name
    announce_info(client, "here:1", lambda: INFO).stop()
    assert client.hgetall("metrics:workers") == {}


def test_a_reconciler_is_present_while_its_passes_go_on_and_says_whether_it_leads(client: redis.Redis) -> None:
    stop, leads, last_pass = threading.Event(), [False], [boottime_s()]
    presence = ReconcilerPresence(client, "here:2", lambda: leads[0], lambda: last_pass[0])
    client.hset("metrics:reconcilers", "dead:1", f"{(now_of(client) - 16) * 1_000} 1")
    client.hset("metrics:reconcilers", "broken:1", "no entry")
    thread = threading.Thread(target=presence.run, args=(stop,))
    thread.start()

    def shown() -> list[tuple[str, bool]]:
        return [(each.name, each.is_leading) for each in read_fleet(client).reconcilers]

    wait_until(lambda: shown() == [("here:2", False)], what="the reconciler is present")
    assert client.hkeys("metrics:reconcilers") == [b"here:2"]
    leads[0] = True
    wait_until(lambda: shown() == [("here:2", True)], 3, "the change is announced at once")
    last_pass[0] = boottime_s() - TTL_S
    client.delete("metrics:reconcilers")
    leads[0] = False
    threading.Event().wait(1.5)
    assert shown() == [], "one whose passes do not end is not renewed"
    stop.set()
    thread.join()
    assert client.exists("metrics:reconcilers") == 0
