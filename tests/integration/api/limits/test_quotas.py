"""Quotas by real submits: what is refused, what the refusal says, and what does not count."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from threading import Barrier

from api.limits.stored_bytes import StoredBytes
from shared.bootstrap import bootstrap
from shared.limits import Quota
from shared.settings import Settings
from tests.integration.api.limits.conftest import RUN, Api
from tests.waiting import wait_until


def test_no_more_runs_wait_than_the_quota_permits(make_api: Callable[..., Api]) -> None:
    quotas = {"public": Quota(queued=3)}
    one, other = make_api(quotas=quotas), make_api(quotas=quotas)
    assert [api.submit().status_code for api in (one, other, one, other)] == [202, 202, 202, 429]
    refused = one.submit()
    assert (refused.json["error_code"], refused.json["quota"], refused.json["used"]) == ("quota_exceeded", "queued", 3)
    assert one.submit(key=one.new_key(integrator="other")).status_code == 202, "it has a quota of its own, or none"


def test_the_items_of_a_batch_and_submits_in_a_row_are_counted_one_by_one(make_api: Callable[..., Api]) -> None:
    api = make_api(quotas={"public": Quota(queued=3), "acme": Quota(queued=8)})
    batch = api.call("POST", "/run-basket/batch", json={"items": [RUN] * 5}).json
    assert sorted(item["status"] for item in batch["items"]) == [202, 202, 202, 429, 429]
    key = api.new_key(integrator="acme")  # of eight, one is accepted by the count before
    assert [api.submit(key=key).status_code for _ in range(10)] == [202] * 8 + [429] * 2


def test_the_count_of_one_integrator_is_not_that_of_another(make_api: Callable[..., Api]) -> None:
    api = make_api(quotas={"*": Quota(queued=20)})
    other = api.new_key(integrator="other")
    assert api.call("POST", "/run-basket/batch", json={"items": [RUN] * 20}).status_code == 202
    assert [api.submit(key=key).status_code for key in (api.key, other, api.key)] == [429, 202, 429]


def test_a_run_that_has_begun_waits_no_more_but_is_not_done(make_api: Callable[..., Api]) -> None:
    api = make_api(quotas={"public": Quota(running=2), "acme": Quota(queued=2)})
    acme = api.new_key(integrator="acme")
    assert [api.submit(key=key).status_code for key in (api.key, api.key, acme, acme)] == [202] * 4
    api.services.database.collection("executions").update_many({}, {"$set": {"status": "running"}})
    refused = api.submit()
    assert (refused.status_code, refused.json["quota"]) == (429, "running")
    wait_until(lambda: api.submit(key=acme).status_code == 202, 5, "no run of acme waits")


def test_submits_at_once_do_not_share_what_is_left(make_api: Callable[..., Api]) -> None:
    api = make_api(quotas={"public": Quota(queued=3)})
    begin = Barrier(8)

    def submit(_: int) -> int:
        begin.wait(10)
        return api.submit().status_code

    with ThreadPoolExecutor(8) as callers:
        replies = list(callers.map(submit, range(8)))
    assert set(replies) == {202, 429}
    accepted = replies.count(202) + [api.submit().status_code for _ in range(3)].count(202)
    assert accepted == 3, "what was reserved is used or given back"


def test_a_quota_of_the_day_says_when_the_next_one_begins(make_api: Callable[..., Api]) -> None:
    api = make_api(quotas={"*": Quota(runs_per_day=0)})
    before = api.services.clock.now()
    refused = api.submit()
    midnight = before.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert refused.status_code == 429
    early = (midnight - api.services.clock.now()).total_seconds()
    assert early <= int(refused.headers["Retry-After"]) <= (midnight - before).total_seconds() + 3


def test_one_process_estimates_the_stored_bytes_and_others_read_them(redis_url: str, mongodb_url: str) -> None:
    settings = Settings(redis_url=redis_url, mongodb_url=mongodb_url, quotas={"public": Quota(stored_bytes=1)})
    services = bootstrap(settings, "api")
    with closing(services.database), closing(services.redis):
        one, other = StoredBytes(services), StoredBytes(services)
        one.refresh()
        assert services.redis.hgetall("quota:stored_bytes") == {b"public": b"0"}
        services.redis.hset("quota:stored_bytes", "public", "7")  # an estimate would replace it
        other.refresh()
        assert (one.of("public"), other.of("public"), other.of("acme")) == (0, 7, 0)
        one.refresh()
        assert one.of("public") == 7


def test_an_integrator_that_has_nothing_stored_any_more_has_no_estimate(redis_url: str, mongodb_url: str) -> None:
    settings = Settings(redis_url=redis_url, mongodb_url=mongodb_url, quotas={"*": Quota(stored_bytes=1)})
    services = bootstrap(settings, "api")
    with closing(services.database), closing(services.redis):
        services.redis.hset("quota:stored_bytes", "acme", "7")
        stored_bytes = StoredBytes(services)
        stored_bytes.refresh()
        assert stored_bytes.of("acme") == 0


def test_a_replay_is_no_run_of_the_day(make_api: Callable[..., Api]) -> None:
    api = make_api(quotas={"*": Quota(runs_per_day=2)})
    replies = [api.submit(headers={"Idempotency-Key": key}).status_code for key in ("a", "a", "b", "b", "c", "a")]
    assert replies == [202, 202, 202, 202, 429, 202]


def test_stored_bytes_are_estimated_in_the_background(make_api: Callable[..., Api]) -> None:
    api = make_api(quotas={"public": Quota(stored_bytes=1), "acme": Quota(stored_bytes=1)})
    assert api.call("POST", "/run-basket/batch", json={"items": [RUN] * 2}).status_code == 202
    api.services.redis.delete("quota:stored_bytes:turn")  # else the next estimate is made in 15 s
    wait_until(lambda: api.submit().status_code == 429, 30, "the estimate is above the quota")


def test_all_that_are_not_done_count_as_running(make_api: Callable[..., Api]) -> None:
    api = make_api(quotas={"*": Quota(running=2)})
    runs = [api.submit().json["execution_id"] for _ in range(2)]
    refused = api.submit()
    assert (refused.status_code, refused.json["quota"], refused.json["limit"]) == (429, "running", 2)
    assert int(refused.headers["Retry-After"]) >= 1
    assert api.call("POST", f"/executions/{runs[0]}/cancel", json={}).status_code == 200
    wait_until(lambda: api.submit().status_code == 202, 5, "a cancelled run makes room")


def test_a_retry_is_a_new_run_and_nothing_is_kept_of_a_refused_one(make_api: Callable[..., Api]) -> None:
    api = make_api(quotas={"*": Quota(runs_per_day=3)})
    run = api.submit().json["execution_id"]
    assert api.call("POST", f"/executions/{run}/cancel", json={}).status_code == 200
    assert api.call("POST", f"/executions/{run}/retry", json={}).status_code == 202
    assert api.submit().status_code == 202
    refused = api.call("POST", f"/executions/{run}/retry", json={})
    assert (refused.status_code, refused.json["quota"], refused.json["used"]) == (429, "runs_per_day", 3)
    assert len(api.call("GET", "/executions").json["executions"]) == 3
