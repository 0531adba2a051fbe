"""Quotas by real submits: what is refused, what the refusal says, and what does not count."""

from __future__ import annotations

from collections.abc import Callable

from shared.limits import Quota
from tests.integration.api.limits.conftest import RUN, Api
from tests.waiting import wait_until


def test_no_more_runs_wait_than_the_quota_permits(make_api: Callable[..., Api]) -> None:
    quotas = {"public": Quota(queued=3)}
    one, other = make_api(quotas=quotas), make_api(quotas=quotas)
    assert [api.submit().status_code for api in (one, other, one, other)] == [202, 202, 202, 429]
    refused = one.submit()
    assert (refused.json["error_code"], refused.json["quota"], refused.json["used"]) == ("quota_exceeded", "queued", 3)
    assert one.submit(key=one.new_key(integrator="other")).status_code == 202, "it has a quota of its own, or none"


def test_a_replay_is_no_run_of_the_day(make_api: Callable[..., Api]) -> None:
    api = make_api(quotas={"*": Quota(runs_per_day=2)})
    replies = [api.submit(headers={"Idempotency-Key": key}).status_code for key in ("a", "a", "b", "b", "c", "a")]
    assert replies == [202, 202, 202, 202, 429, 202]


def test_stored_bytes_are_estimated_in_the_background(make_api: Callable[..., Api]) -> None:
    api = make_api(quotas={"public": Quota(stored_bytes=1), "acme": Quota(stored_bytes=1)})
    assert api.call("POST", "/run-basket/batch", json={"items": [RUN] * 2}).status_code == 202
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
