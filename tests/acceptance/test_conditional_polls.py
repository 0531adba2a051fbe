"""Conditional polls (ETag, ``If-None-Match``), pages of log lines (``after``) and sparse fields (``fields``)."""

from __future__ import annotations

import http.client
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.live.views import view_key
from tests.acceptance.client import ApiClient

LINES = 250  # more than a view holds, fewer than are kept
HINTS = {"poll_after_ms", "waiting_for"}
UNKNOWN = "1763700000_89ce24ad1b2c3d4e"


@pytest.fixture(scope="module")
def final_view(caller: ApiClient) -> dict[str, Any]:
    """Return the last view of a run with a long log."""
    return caller.wait_done(caller.submit_agent("chatty", lines=LINES))


def etag_of(view: dict[str, Any]) -> str:
    return f'W/"{view["execution_id"]}.{view["rev"]}"'


@pytest.mark.parametrize("path", ["/execution-logs", "/executions", "/api/v1/execution-logs", "/api/v1/executions"])
def test_head_returns_the_headers_of_get_without_the_body(
    caller: ApiClient, final_view: dict[str, Any], path: str
) -> None:
    url = f"{path}/{final_view['execution_id']}"
    for headers, status in (({}, 200), ({"If-None-Match": etag_of(final_view)}, 304)):
        get, head = caller.get(url, headers=headers), caller.request("HEAD", url, headers=headers)
        assert (get.status_code, head.status_code, head.content) == (status, status, b"")
        ignored = {"Date", "X-Request-ID"}
        assert {name: value for name, value in head.headers.items() if name not in ignored} == {
            name: value for name, value in get.headers.items() if name not in ignored
        }


@pytest.mark.parametrize("path", ["/execution-logs", "/executions", "/api/v1/execution-logs", "/api/v1/executions"])
def test_every_poll_has_the_servers_time(caller: ApiClient, final_view: dict[str, Any], path: str) -> None:
    url, if_none_match = f"{path}/{final_view['execution_id']}", {"If-None-Match": etag_of(final_view)}
    requests = [(url, {}, 200), (f"{url}?after=3&limit=2", {}, 200), (f"{url}?fields=status", {}, 200),
             (f"{url}?wait=5", {}, 200), (url, if_none_match, 304), (f"{url}?wait=5", if_none_match, 304),
             (f"{path}/{UNKNOWN}", {}, 404), (f"{path}/None", {}, 404)]  # fmt: skip
    for method in ("GET", "HEAD"):
        for target, headers, status in requests:
            before = datetime.now(UTC)
            response = caller.request(method, target, headers=headers)
            assert response.status_code == status, (method, target)
            date = parsedate_to_datetime(response.headers["Date"])
            # In whole seconds; this test and the server use one clock, so load cannot make them differ.
            assert before - timedelta(seconds=5) < date < datetime.now(UTC) + timedelta(seconds=5)


def test_a_poll_is_private_and_revalidated_each_time(caller: ApiClient, final_view: dict[str, Any]) -> None:
    url = f"/execution-logs/{final_view['execution_id']}"
    for query, headers in (
        ("", {}),
        ("?fields=status", {}),
        ("?after=3", {}),
        ("", {"If-None-Match": etag_of(final_view)}),
    ):
        response = caller.get(url + query, headers=headers)
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert response.headers["Vary"] == "Accept-Encoding, Authorization"
        assert response.headers["ETag"] == etag_of(final_view)
        assert "Retry-After" not in response.headers, "a final run never moves again"
        if response.status_code == 200:
            assert response.headers["Content-Type"] == "application/json"
            assert int(response.headers["Content-Length"]) == len(response.content)


def test_a_poll_of_a_live_run_is_never_stored_and_its_etag_works_all_the_same(caller: ApiClient) -> None:
    submitted = caller.post("/run-basket", {"basket_name": "working_test", "run_after_s": 3600}).json()
    etag = caller.get(submitted["status_url"]).headers["ETag"]
    for query in ("", "?fields=status", "?after=1", "?wait=0.1"):
        for headers, status in (({}, 200), ({"If-None-Match": etag}, 304)):
            response = caller.get(submitted["status_url"] + query, headers=headers)
            assert (response.status_code, response.headers["Cache-Control"]) == (status, "no-store")
    cancelled = caller.request("POST", f"/executions/{submitted['execution_id']}/cancel")
    assert (cancelled.json()["done"], cancelled.headers["Cache-Control"]) == (True, "private, no-cache")


@pytest.mark.parametrize("suffix", ["-gzip", "--gzip", "-br", "-zstd", "-deflate"])
def test_an_etag_is_known_with_the_suffix_of_a_proxy_that_compresses(
    caller: ApiClient, final_view: dict[str, Any], suffix: str
) -> None:
    url, etag = f"/execution-logs/{final_view['execution_id']}", etag_of(final_view)
    for tags in (f'{etag[:-1]}{suffix}"', f'"x", {etag[2:-1]}{suffix}"'):
        for query in ("", "?wait=5"):
            assert caller.get(url + query, headers={"If-None-Match": tags}).status_code == 304
    for other in (f'{etag[:-1]}-x"', f'{etag[:-1]}0{suffix}"', f"{etag}{suffix}"):
        assert caller.get(url, headers={"If-None-Match": other}).status_code == 200
    document = caller.get("/openapi.json").headers["ETag"]
    assert caller.get("/openapi.json", headers={"If-None-Match": f'{document[:-1]}{suffix}"'}).status_code == 304


def test_a_held_poll_with_the_suffix_of_a_proxy_waits_for_the_next_revision(caller: ApiClient) -> None:
    submitted = caller.post("/run-basket", {"basket_name": "working_test", "run_after_s": 3600}).json()
    url, etag = submitted["status_url"], f'W/"{submitted["execution_id"]}.1-gzip"'
    held = caller.get(f"{url}?wait=0.3", headers={"If-None-Match": etag})
    assert (held.status_code, held.elapsed.total_seconds() >= 0.3) == (304, True)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/baskets"), ("GET", "/baskets/working_test"), ("GET", "/agents"), ("GET", "/agents/echo"),
     ("GET", "/metrics"), ("GET", "/health"), ("GET", "/nothing"), ("DELETE", "/agents"), ("OPTIONS", "/baskets"),
     ("POST", "/create-basket"), ("HEAD", "/baskets")],
)  # fmt: skip
def test_what_can_change_at_any_time_is_never_stored(caller: ApiClient, method: str, path: str) -> None:
    assert caller.request(method, path).headers["Cache-Control"] == "no-store"


def test_a_poll_never_shows_an_older_revision_than_the_caller_has_seen(caller: ApiClient) -> None:
    final_view = caller.wait_done(caller.submit_agent("echo"))
    run, rev = final_view["execution_id"], final_view["rev"]
    redis = caller.stack.redis()
    cached = str(redis.get(view_key(PUBLIC_INTEGRATOR, run)))
    # The state after a worker died between its write and the update of the view.
    redis.set(view_key(PUBLIC_INTEGRATOR, run), cached.replace(f'"rev":{rev}', f'"rev":{rev - 1}'), ex=60)
    assert caller.poll(run)["rev"] == rev - 1, "a caller without an ETag gets the older view"
    for query in ("", "?wait=5", "?fields=status", "?after=0"):
        for etags in (f'W/"{run}.{rev}"', f'"x", "{run}.1", "{run}.{rev}"'):
            response = caller.get(f"/execution-logs/{run}{query}", headers={"If-None-Match": etags})
            assert response.headers["ETag"] == etag_of(final_view)
            assert response.status_code == (200 if query == "?after=0" else 304), query
    ahead = caller.get(f"/execution-logs/{run}", headers={"If-None-Match": f'W/"{run}.{10**15 - 1}"'})
    assert ahead.json() == final_view, "a revision that never existed gets the current view"


def test_several_if_none_match_headers_are_one_list(caller: ApiClient, final_view: dict[str, Any]) -> None:
    parts = urlsplit(caller.stack.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.putrequest("GET", f"/execution-logs/{final_view['execution_id']}")
    for etag in ('"other"', etag_of(final_view), ',,"', "*"):
        connection.putheader("If-None-Match", etag)
    connection.endheaders()
    assert connection.getresponse().status == 304
    connection.close()


def test_a_304_of_an_unfinished_run_says_when_to_poll_again(caller: ApiClient) -> None:
    submitted = caller.post("/run-basket", {"basket_name": "working_test", "run_after_s": 3600})
    url = submitted.json()["status_url"]
    etag = caller.get(url).headers["ETag"]
    for query in ("", "?fields=status", "?after=1"):
        response = caller.get(url + query, headers={"If-None-Match": etag})
        assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", etag)
        assert int(response.headers["Retry-After"]) == 30
    assert caller.get(f"{url}?after=0", headers={"If-None-Match": etag}).status_code == 200, "there is a newer line"
    caller.request("POST", f"/executions/{submitted.json()['execution_id']}/cancel")


def test_fields_leave_out_the_rest(caller: ApiClient, final_view: dict[str, Any]) -> None:
    url = f"/executions/{final_view['execution_id']}"
    response = caller.get(f"{url}?fields=progress,result,total")
    names = ("execution_id", "status", "done", "rev", "progress", "result", "total")
    assert response.json() == {name: final_view[name] for name in names}
    assert response.headers["ETag"] == etag_of(final_view)
    lines = caller.get(f"{url}?fields=logs,next_after&after=3&limit=2").json()
    assert [line["seq"] for line in lines["logs"]] == [4, 5]
    assert (lines["next_after"], lines["gap"], "steps" in lines) == (5, False, False)


def test_a_reply_with_only_the_status_is_small_even_with_long_names(caller: ApiClient) -> None:
    config = {"name": "n" * 100, "agents": ["echo"]}
    headers = {"X-Request-ID": "r" * 128}
    response = caller.request("POST", "/run-basket", json={"config": config, "tags": ["t" * 64] * 20}, headers=headers)
    run = response.json()["execution_id"]
    for _ in ("perhaps still running", caller.wait_done(run)):
        poll = caller.get(f"/execution-logs/{run}?fields=status")
        assert len(poll.content) < 400
        assert {*poll.json()} == {"execution_id", "status", "done", "rev"}


@pytest.mark.parametrize("fields", ["", "status,", "nobody", "status,$where", "result.a", "STATUS"])
def test_an_unknown_field_is_400_and_the_known_fields_are_listed(
    caller: ApiClient, final_view: dict[str, Any], fields: str
) -> None:
    response = caller.get(f"/execution-logs/{final_view['execution_id']}", params={"fields": fields})
    problem = response.json()
    assert (response.status_code, problem["error_code"]) == (400, "validation_failed")
    assert problem["details"][0]["parameter"] == "fields"
    assert all(name in problem["detail"] for name in ("status", "next_after", "poll_after_ms"))


@pytest.mark.parametrize("name", ["fields", "after", "limit", "wait", "until"])
def test_a_repeated_parameter_is_refused(caller: ApiClient, final_view: dict[str, Any], name: str) -> None:
    good = {"fields": "status", "until": "done"}.get(name, "1")
    refused = caller.get(f"/executions/{final_view['execution_id']}?{name}={good}&{name}={good}")
    assert (refused.status_code, refused.json()["details"][0]["parameter"]) == (400, name)


def test_pages_come_from_redis_if_it_has_their_lines_and_else_from_mongodb(caller: ApiClient) -> None:
    run = caller.wait_done(caller.submit_agent("chatty", lines=LINES))
    executions = caller.stack.mongo().executions
    executions.update_one({"_id": run["execution_id"]}, {"$set": {"events.$[].message": "read from MongoDB"}})
    total = run["total"]
    newest = caller.poll(run["execution_id"], after=total - 100, limit=1_000)
    assert newest["logs"] == run["logs"]
    assert caller.poll(run["execution_id"], limit=5)["logs"] == run["logs"][-5:]
    for query in ({"after": total - 101}, {"after": 0, "limit": 7}, {"limit": 101}):
        assert {line["message"] for line in caller.poll(run["execution_id"], **query)["logs"]} == {"read from MongoDB"}


@pytest.mark.parametrize("limit", [1, 37, 100, 1_000])
def test_pages_from_any_start_together_are_the_whole_log(
    caller: ApiClient, final_view: dict[str, Any], limit: int
) -> None:
    total = final_view["total"]
    for start in (0, 1, total - 101, total - 100, total - 1, total) if limit > 1 else (total - 12,):
        lines, after = [], start
        while (page := caller.poll(final_view["execution_id"], after=after, limit=limit))["count"]:
            assert (page["gap"], page["first_seq"], page["total"]) == (False, 1, total)
            lines += [line["seq"] for line in page["logs"]]
            after = page["next_after"]
        assert lines == list(range(start + 1, total + 1))


def test_a_gap_is_reported_from_redis_and_from_mongodb_alike(caller: ApiClient) -> None:
    run = caller.wait_done(caller.submit_agent("chatty", lines=1_100))
    dropped = run["logs_dropped"]
    assert dropped == 104
    for after, gap in ((0, True), (dropped - 1, True), (dropped, False), (run["total"] - 50, False)):
        page = caller.poll(run["execution_id"], after=after, limit=10)
        assert page["gap"] is gap
        assert page["logs"][0]["seq"] == max(after, dropped) + 1
    assert "gap" not in run, "without `after` no gap is reported"


def test_a_page_is_the_same_after_redis_has_forgotten_the_view(caller: ApiClient, final_view: dict[str, Any]) -> None:
    run = final_view["execution_id"]
    queries = ({"after": LINES}, {"after": 3, "limit": 4}, {"limit": 2}, {"fields": "logs", "after": LINES})
    before = [caller.poll(run, **query) for query in queries]
    redis = caller.stack.redis()
    for query, page in zip(queries, before, strict=True):
        assert redis.delete(view_key(PUBLIC_INTEGRATOR, run)) == 1
        assert caller.poll(run, **query) == page


def test_no_poll_takes_back_what_a_page_of_lines_has_shown(caller: ApiClient) -> None:
    """As if a worker had been killed before it published the newest revision."""
    run = caller.wait_done(caller.submit_agent("chatty", lines=150))
    caller.stack.mongo().executions.update_one({"_id": run["execution_id"]}, {"$inc": {"rev": 1}})
    assert caller.poll(run["execution_id"])["rev"] == run["rev"], "this is what would be shown"
    assert caller.poll(run["execution_id"], after=0, limit=10)["rev"] == run["rev"] + 1
    assert caller.poll(run["execution_id"])["rev"] == run["rev"] + 1
