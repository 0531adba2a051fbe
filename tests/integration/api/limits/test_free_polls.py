"""Which polls cost a token and which are free: those that come as the hint before told them to."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from werkzeug.test import TestResponse

from shared.limits import RateLimit
from shared.live.views import view_key
from shared.sealing import KeyRing, Sealer, output_place
from tests.integration.api.limits.conftest import Api, limits

BURST = 5
FEW_POLLS = limits(poll=RateLimit(0.001, BURST))


def left(reply: TestResponse) -> int:
    """Return how many polls are left after a reply."""
    return int(reply.headers["X-RateLimit-Remaining"])


def poll(api: Api, run: str, key: str | None = None, query: str = "") -> TestResponse:
    return api.call("GET", f"/execution-logs/{run}{query}", key=key)


def new_run(api: Api) -> str:
    return str(api.submit().json["execution_id"])


def spend_all(api: Api) -> None:
    """Send polls that no hint told to come, until there is no token left."""
    for _ in range(BURST):
        assert api.call("GET", "/executions/1700000000-0000000000000000").status_code == 404


def forget_view(api: Api, run: str) -> None:
    """Let the next poll read the run from MongoDB."""
    api.services.redis.delete(view_key("public", run))


def test_a_poll_is_free_for_each_caller_if_it_comes_as_told_and_costs_if_it_comes_earlier(
    make_api: Callable[..., Api],
) -> None:
    api = make_api(rate_limits=FEW_POLLS)
    run, other_key = new_run(api), api.new_key()
    first = poll(api, run)
    came_at = time.monotonic()
    assert left(first) == BURST, "it has no hint yet"
    assert left(poll(api, run, other_key)) == BURST, "another caller has another hint"
    early = poll(api, run)
    assert time.monotonic() - came_at < first.json["poll_after_ms"] * 0.8 / 1_000, "the test itself was slow"
    assert left(early) == BURST - 1
    time.sleep(early.json["poll_after_ms"] / 1_000)
    assert left(poll(api, run)) == BURST - 1


def test_the_hint_of_a_held_poll_counts_from_when_it_came(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_limits=FEW_POLLS)
    run = new_run(api)
    began_at = time.monotonic()
    held = api.call("GET", f"/execution-logs/{run}", headers={"Prefer": "wait=2"})
    assert held.json["poll_after_ms"] <= (time.monotonic() - began_at) * 1_000, "it has waited as long as its hint"
    assert left(poll(api, run)) == BURST


def test_a_recent_end_is_free_to_see_once_and_an_old_one_is_not(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_limits=FEW_POLLS)
    recent, old = new_run(api), new_run(api)
    for run in (recent, old):
        assert api.call("POST", f"/executions/{run}/cancel", json={}).status_code == 200
    watcher = api.new_key()  # the reply to the cancel has shown its sender the end
    assert [left(poll(api, recent, watcher)) for _ in range(3)] == [BURST, BURST - 1, BURST - 2]
    long_ago = api.services.clock.now() - timedelta(hours=1)
    api.services.database.collection("executions").update_one({"_id": old}, {"$set": {"finished_at": long_ago}})
    forget_view(api, old)
    assert left(poll(api, old, watcher)) == BURST - 3


def test_a_refused_poll_costs_nothing_and_so_does_one_that_the_server_could_not_answer(
    make_api: Callable[..., Api],
) -> None:
    api = make_api(rate_limits=FEW_POLLS)
    run = new_run(api)
    output = Sealer(KeyRing({"gone": bytes(32)})).seal(b"{}", output_place(run, "x"))
    change = {"$set": {"sealed": ["gone"], "outputs": {"x": output}}}
    api.services.database.collection("executions").update_one({"_id": run}, change)
    forget_view(api, run)
    failed = poll(api, run)
    assert (failed.status_code, left(failed)) == (503, BURST)
    spend_all(api)
    refused = [poll(api, run) for _ in range(10)]
    assert {reply.status_code for reply in refused} == {429}
    assert len({reply.headers["X-RateLimit-Reset"] for reply in refused}) <= 2, "no token more is owed than before"


def test_a_poll_that_is_due_is_let_through_once_and_nothing_else_by_its_hint(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_limits=FEW_POLLS)
    run = new_run(api)
    hint_ms = max(poll(api, run).json["poll_after_ms"], api.call("GET", "/executions/changes").json["poll_after_ms"])
    spend_all(api)
    time.sleep(hint_ms / 1_000)
    assert api.call("POST", "/executions/poll", json={"items": [{"execution_id": run}]}).status_code == 429
    assert api.call("GET", f"/executions/{run}/outputs/x").status_code == 429
    # A faulty request gets no new hint: it may come so once.
    assert [poll(api, run, query="?fields=nonsense").status_code for _ in range(2)] == [400, 429]
    assert api.call("GET", "/executions/changes").status_code == 200
