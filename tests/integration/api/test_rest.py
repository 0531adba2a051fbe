"""An API process without requests rests; the first request after it is told what is true then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from compose.embedded.managed_process import Child
from shared.bootstrap import bootstrap
from shared.live.redis_client import connect
from shared.settings import Settings
from tests.waiting import wait_until

QUIET_S = 1.0
BODY = {"basket_name": "working_test", "input_data": {"transactions": []}}


@dataclass(frozen=True, slots=True)
class Api:
    """The API in this process, and the Redis that it looks at."""

    client: FlaskClient
    redis: redis.Redis
    redis_child: Child

    def submit_status(self) -> int:
        return self.client.post("/run-basket", json=BODY).status_code

    def ready_status(self) -> int:
        return self.client.get("/ready").status_code

    def wait_for_rest(self) -> None:
        """Wait until Redis was not looked at for a while; at work there are ten looks a second."""
        wait_until(self._is_quiet, 15, "the process rests")

    def _is_quiet(self) -> bool:
        before = self.looks()
        time.sleep(QUIET_S)
        return self.looks() == before

    def looks(self) -> int:
        calls: int = self.redis.info("commandstats")["cmdstat_exists"]["calls"]
        return calls


@pytest.fixture
def api(own_redis: tuple[Child, str], mongodb_url: str) -> Iterator[Api]:
    child, url = own_redis
    services = bootstrap(replace(Settings(), redis_url=url, mongodb_url=mongodb_url), "api")
    app, start = create_app(services)
    with closing(services.database), closing(services.redis), closing(connect(url)) as client:
        others = set(threading.enumerate())
        end = start()
        api = Api(app.test_client(), client, child)
        wait_until(lambda: api.submit_status() == 202, 10, "runs are accepted")
        yield api
        # The one that withdraws lost inserts waits for the next one, and costs nothing.
        names = {"redis-monitor", "watch_store", "refresh_durations"}
        ours = [thread for thread in set(threading.enumerate()) - others if thread.name in names]
        assert len(ours) == len(names)
        end()
        wait_until(lambda: not any(thread.is_alive() for thread in ours), 15, "its threads have ended")


def kill(api: Api) -> None:
    api.redis_child.kill()


def start_again(api: Api) -> None:
    api.redis_child.start()
    api.redis_child.wait_ready()


def freeze(api: Api) -> None:
    api.redis_child.pause()


def thaw(api: Api) -> None:
    api.redis_child.resume()


def make_replica(api: Api) -> None:
    api.redis.replicaof("127.0.0.1", "1")


def make_primary(api: Api) -> None:
    api.redis.replicaof("NO", "ONE")


WAYS: list[tuple[Callable[[Api], None], Callable[[Api], None]]] = [
    (kill, start_again), (freeze, thaw), (make_replica, make_primary)
]  # fmt: skip


def test_the_first_request_after_a_rest_knows_that_redis_is_away(api: Api) -> None:
    for take_away, give_back in WAYS:
        for status_of in (Api.submit_status, Api.ready_status):
            api.wait_for_rest()
            take_away(api)
            assert status_of(api) == 503, take_away.__name__
            give_back(api)
            wait_until(lambda: api.submit_status() == 202, 10, "Redis counts as available again")


def test_the_process_does_not_rest_while_redis_is_away(api: Api) -> None:
    make_replica(api)
    wait_until(lambda: api.submit_status() == 503, 5, "Redis counts as away")
    before = api.looks()
    wait_until(lambda: api.looks() >= before + 30, 10, "it looks for Redis without a request, as often as ever")
