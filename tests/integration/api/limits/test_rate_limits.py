"""Rate limits over HTTP, on a real Redis: what is refused, what the refusal says, and what the processes share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
import redis

from api.app import create_app
from api.auth.key_service import KeyService
from api.limits.rate_limiter import SETTLE_EVERY_S
from compose.embedded.managed_process import Child
from shared.bootstrap import bootstrap
from shared.domain.access.api_key import KeyRequest
from shared.domain.access.caller import Role
from shared.limits import RateLimit
from shared.live.shared_buckets import Charge, SharedBuckets
from shared.settings import Settings
from tests.integration.api.limits.conftest import PEPPER, RUN, Api, limits
from tests.waiting import wait_until


def statuses(apis: list[Api], times: int, key: str) -> list[int]:
    """Return the statuses of submits that are sent to the APIs in turn."""
    return [apis[number % len(apis)].submit(key=key).status_code for number in range(times)]


def test_a_key_may_send_its_burst_and_is_told_when_to_come_again(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_limits=limits(submit=RateLimit(2, 3)))
    accepted = [api.submit() for _ in range(3)]
    assert [reply.status_code for reply in accepted] == [202] * 3
    assert [reply.headers["X-RateLimit-Remaining"] for reply in accepted] == ["2", "1", "0"]
    assert {reply.headers["X-RateLimit-Limit"] for reply in accepted} == {"3"}
    assert [reply.headers["X-RateLimit-Reset"] for reply in accepted] == ["1", "1", "2"]
    refused = api.submit()
    assert (refused.status_code, refused.json["error_code"]) == (429, "rate_limited")
    assert "2 submit requests a second, 3 at once" in refused.json["detail"]
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert "RateLimit" not in refused.headers
    time.sleep(int(refused.headers["Retry-After"]))
    assert api.submit().status_code == 202


def test_classes_and_keys_have_buckets_of_their_own(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_limits=limits(submit=RateLimit(0.01, 1)))
    run = api.submit().json["execution_id"]
    assert api.submit().status_code == 429
    assert api.call("GET", f"/executions/{run}").status_code == 200
    assert api.call("POST", f"/executions/{run}/cancel").status_code == 429
    assert api.submit(key=api.new_key()).status_code == 202


def test_two_processes_share_a_limit_exactly(make_api: Callable[..., Api]) -> None:
    few = limits(submit=RateLimit(0.001, 20))
    one, other = make_api(rate_limits=few), make_api(rate_limits=few)
    assert statuses([one, other], 30, one.key) == [202] * 20 + [429] * 10


def test_a_refusal_costs_no_round_trip_and_a_flood_of_them_no_token(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_limits=limits(submit=RateLimit(0.2, 1)))
    assert statuses([api], 20, api.key).count(202) == 1
    wait_until(lambda: api.submit().status_code == 202, 10, "the bucket has filled in spite of the flood")


def test_a_batch_costs_a_submit_for_each_item_but_a_full_bucket_is_enough(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_limits=limits(submit=RateLimit(5, 10)))

    def batch(items: int) -> int:
        return api.call("POST", "/run-basket/batch", json={"items": [RUN] * items}).status_code

    assert batch(6) == 202
    assert batch(6) == 429
    wait_until(lambda: batch(15) == 202, 5, "a batch larger than the bucket is accepted once the bucket is full")
    refused = api.submit()
    assert int(refused.headers["Retry-After"]) >= 2, "the rest of the batch is owed"


def test_polls_are_shared_by_settling_in_the_background(make_api: Callable[..., Api]) -> None:
    few = limits(poll=RateLimit(0.001, 10))
    one, other = make_api(rate_limits=few), make_api(rate_limits=few)
    path = "/executions/1700000000-0000000000000000"
    for _ in range(10):
        assert one.call("GET", path).status_code == 404
    assert one.call("GET", path).status_code == 429
    time.sleep(SETTLE_EVERY_S)
    # What another process has spent is found out when this one settles its own.
    replies: list[int] = []

    def is_refused() -> bool:
        replies.append(other.call("GET", path, key=one.key).status_code)
        time.sleep(SETTLE_EVERY_S / 2)
        return replies[-1] == 429

    wait_until(is_refused, 10, "the other process refuses too")
    assert len(replies) <= 8, replies


def test_an_empty_redis_means_full_buckets(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_limits=limits(submit=RateLimit(0.001, 3)))
    assert statuses([api], 4, api.key) == [202, 202, 202, 429]
    api.services.redis.flushall()
    other = make_api(rate_limits=limits(submit=RateLimit(0.001, 3)))
    assert statuses([other], 4, api.key) == [202, 202, 202, 429]


def test_a_bucket_expires_when_it_is_full_and_one_of_a_later_clock_refuses_nobody(redis_url: str) -> None:
    with closing(redis.Redis.from_url(redis_url)) as client:
        charge = Charge("submit:key:a", per_s=1, burst=5, cost=1, needed=1)
        [level] = SharedBuckets(client).charge([charge])
        assert (level.is_taken, level.tokens) == (True, 4)
        assert 0 < client.pttl("limit:submit:key:a") <= 1_000
        in_ten_years = 10 * 365 * 86_400_000
        client.set("limit:submit:key:a", str(client.time()[0] * 1_000 + in_ten_years))  # the clock was set back since
        [level] = SharedBuckets(client).charge([charge])
        assert (level.is_taken, level.tokens) == (True, 4)


@pytest.fixture
def lone_api(own_redis: tuple[Child, str], mongodb_url: str) -> Iterator[tuple[Api, Child]]:
    """Yield an API whose Redis may be stopped."""
    child, url = own_redis
    settings = Settings(
        redis_url=url, mongodb_url=mongodb_url, auth="required", key_pepper=PEPPER,
        rate_limits=limits(poll=RateLimit(0.001, 2), list=RateLimit(0.001, 2)),
    )  # fmt: skip
    services = bootstrap(settings, "api")
    with ExitStack() as opened:
        opened.enter_context(closing(services.database))
        opened.enter_context(closing(services.redis))
        app, start = create_app(services)
        opened.callback(start())
        api = Api(services, app.test_client())
        wait_until(lambda: api.client.get("/ready").status_code == 200, 10, "the stores are there")
        api.key = KeyService(services).create(KeyRequest(Role.ADMIN, "acme"), "test")["key"]
        yield api, child


def test_without_redis_nothing_is_limited_and_that_is_counted(lone_api: tuple[Api, Child]) -> None:
    api, redis_child = lone_api
    path = "/executions/1700000000-0000000000000000"
    assert [api.call("GET", "/baskets").status_code for _ in range(3)] == [200, 200, 429]
    assert [api.call("GET", path).status_code for _ in range(3)] == [404, 404, 429]
    before = failed_open(api)
    redis_child.kill()
    wait_until(lambda: api.call("GET", path).status_code == 404, 3, "polls are let through")
    assert {api.call("GET", "/baskets").status_code for _ in range(20)} == {200}
    assert failed_open(api) >= before + 20
    redis_child.start()
    redis_child.wait_ready()
    wait_until(lambda: api.call("GET", "/baskets").status_code == 429, 10, "limits hold again")


def failed_open(api: Api) -> float:
    text = api.call("GET", "/metrics").get_data(as_text=True)
    [line] = [line for line in text.splitlines() if line.startswith("bucket_limits_failed_open_total ")]
    return float(line.split()[1])


def test_the_draft_headers_are_sent_if_they_are_asked_for(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_limits=limits(submit=RateLimit(2, 10)), ratelimit_headers="draft")
    reply = api.submit()
    assert reply.headers["RateLimit-Policy"] == '"submit";q=10;w=5'
    assert reply.headers["RateLimit"] == '"submit";r=9;t=1'
    assert reply.headers["X-RateLimit-Remaining"] == "9"


def test_without_authentication_nothing_is_limited_or_shown(make_api: Callable[..., Api]) -> None:
    api = make_api(auth="off", rate_limits=limits(submit=RateLimit(0.001, 1)))
    replies = [api.client.post("/run-basket", json=RUN) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [202] * 3
    assert not [name for name in dict(replies[0].headers) if "ratelimit" in name.lower()]


def test_a_script_of_another_origin_may_read_the_headers(make_api: Callable[..., Api]) -> None:
    api = make_api(cors_origins=("https://a.example",))
    exposed = api.submit(headers={"Origin": "https://a.example"}).headers["Access-Control-Expose-Headers"]
    assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"} <= set(
        exposed.split(", ")
    )
