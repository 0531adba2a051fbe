"""A Redis that becomes a replica behind its address (a failover): the connections to it are dropped.

New ones reach the new primary. Nobody else closes any, as with a name in DNS that leads elsewhere from now on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from compose.embedded.managed_process import Child
from shared.domain.execution import PRIORITY_FIRST_OFFER
from shared.live.presence.worker_presence import WorkerPresence, present_workers
from shared.live.publisher import Publisher
from shared.live.redis_client import connect
from shared.live.redis_monitor import RedisMonitor
from shared.live.views import ViewCache, view_key
from shared.queue.message import list_key
from shared.telemetry.fleet_counters import FleetCounters
from tests.builders import accept_decision
from tests.faults.proxy import Proxy
from tests.waiting import wait_until


def socket_of(url: str) -> Path:
    return Path(url.removeprefix("unix://").partition("?")[0])


class Failover:
    """An address that leads to one Redis and, after ``happen``, to another one; the first is a replica then."""

    def __init__(self, proxy: Proxy, old: redis.Redis, new_url: str) -> None:
        self.url = proxy.redis_url
        self._proxy = proxy
        self._old = old
        self._new_url = new_url

    def happen(self) -> None:
        self._proxy.target = socket_of(self._new_url)
        self._old.replicaof("127.0.0.1", "1")


@pytest.fixture
def failover(own_redis: tuple[Child, str], redis_url: str) -> Iterator[Failover]:
    old_socket = socket_of(own_redis[1])
    with Proxy(old_socket.with_name("proxy.sock"), old_socket) as proxy, closing(connect(own_redis[1])) as old:
        yield Failover(proxy, old, redis_url)


def test_the_monitor_drops_the_connections_of_an_api_process(failover: Failover) -> None:
    with closing(connect(failover.url)) as client:
        views = ViewCache(client, live_ttl_s=10)
        monitor = RedisMonitor(failover.url, on_demotion=views.reconnect)
        client.set(view_key("acme", "run"), b"old")
        assert (views.get("acme", "run"), monitor.take_snapshot().is_connected) == (b"old", True)
        failover.happen()
        assert views.get("acme", "run") == b"old", "nobody else has closed the connection"
        assert not monitor.take_snapshot().is_connected
        assert monitor.take_snapshot().is_connected
        client.set(view_key("acme", "run"), b"new")
        assert views.get("acme", "run") == b"new"


def test_a_publisher_drops_its_own(failover: Failover, client: redis.Redis) -> None:
    with closing(connect(failover.url)) as old_client:
        publisher = Publisher(old_client, ViewCache(old_client, live_ttl_s=10), FleetCounters())
        publisher.publish_accepted([accept_decision()])
        failover.happen()
        publisher.publish_accepted([accept_decision()])
        publisher.publish_accepted([accept_decision()])
        assert client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1, "one was lost, and will be offered again"


def test_a_workers_presence_reaches_the_new_one(
    failover: Failover, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.live.presence.worker_presence.PRESENCE_RENEW_EVERY_S", 0.05)
    with closing(connect(failover.url)) as old_client:
        presence = WorkerPresence(old_client, "host:1")
        presence.start()
        wait_until(lambda: present_workers(old_client), what="the worker is announced")
        failover.happen()
        wait_until(lambda: present_workers(client), what="the worker is announced to the new Redis")
        presence.stop()
