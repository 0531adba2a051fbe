"""Revisions are compared inside Redis: only changed views are returned, as status or full views, within the limits."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis

from shared.ids import new_execution_id
from shared.live.render import parse_header, render
from shared.live.revision_compare import ViewComparison, compare_views
from shared.live.view_trailer import WaitState, split_trailer
from shared.live.views import view_key
from tests.builders import NOON, accept_decision, claim_decision, complete_decision

OWNER = "acme"
UNKNOWN = "1763700000_0000000000000000"


def queued(client: redis.Redis, **changes: object) -> tuple[str, bytes]:
    """Return the id and the view of a run that was just accepted."""
    decision = accept_decision(id=new_execution_id(NOON), **changes)
    view = render(decision.initial_record)
    assert view is not None
    client.set(view_key(OWNER, decision.execution.id), view)
    return decision.execution.id, view


def compare(client: redis.Redis, revs: dict[str, int | None], *, whole: int = 0, live: int = 10) -> ViewComparison:
    return compare_views(client, OWNER, revs, whole_bytes=whole, live_max=live)


def test_only_changed_runs_are_returned_as_status_views(client: redis.Redis) -> None:
    (same, _), (older, older_view) = queued(client), queued(client, tags=("a", '","steps":['))
    comparison = compare(client, {same: 1, UNKNOWN: 3, older: None})
    assert (comparison.unchanged, comparison.missing, comparison.omitted) == (1, [UNKNOWN], [])
    (view,) = comparison.changed
    status, trailer = split_trailer(view)
    assert older_view.startswith(status + b',"steps":[')
    assert (parse_header(view).execution_id, trailer.wait_state) == (older, WaitState("queue"))
    assert trailer.timing is not None
    assert trailer.timing.agent == "only"
    assert [parse_header(view).execution_id for view in comparison.live] == [same]


@pytest.mark.parametrize(("rev", "is_changed"), [(None, True), (0, True), (1, False)])
def test_a_revision_is_compared_as_a_number(client: redis.Redis, rev: int | None, *, is_changed: bool) -> None:
    run, _ = queued(client)
    comparison = compare(client, {run: rev})
    assert (len(comparison.changed), comparison.unchanged) == ((1, 0) if is_changed else (0, 1))


@pytest.mark.parametrize("rev", [2, 10, 2**63 - 1])
def test_a_view_older_than_the_caller_has_seen_counts_as_missing(client: redis.Redis, rev: int) -> None:
    run, _ = queued(client)
    assert compare(client, {run: rev}).missing == [run]


def test_a_value_that_is_not_a_view_of_this_release_counts_as_missing(client: redis.Redis) -> None:
    run, view = queued(client)
    for other in (b"", b"{}", view.replace(b',"steps":[', b',"stairs":['), b"\xff" * 500):
        client.set(view_key(OWNER, run), other)
        assert compare(client, {run: None}).missing == [run]


def test_a_status_longer_than_the_first_read_is_found_too(client: redis.Redis) -> None:
    tags = tuple(f"{number:02}" + '"' * 62 for number in range(20))
    run, view = queued(client, tags=tags)
    (comparison,) = compare(client, {run: None}).changed
    assert view.startswith(split_trailer(comparison)[0])
    assert comparison.count(b'\\"') == 20 * 62


def test_some_unchanged_unfinished_runs_are_returned_for_the_hints(client: redis.Redis) -> None:
    runs = [queued(client)[0] for _ in range(5)]
    done = accept_decision(id=new_execution_id(NOON))
    running = claim_decision(done.execution, "only").execution
    final = complete_decision(running, now=NOON + timedelta(seconds=1)).execution
    view = render(type(done.initial_record)(final, (), 3, {"only": b"{}"}))
    assert view is not None
    client.set(view_key(OWNER, final.id), view)
    revs: dict[str, int | None] = dict.fromkeys([final.id, *runs], 1)
    comparison = compare(client, revs, live=3)
    assert comparison.unchanged == 6
    assert [parse_header(view).execution_id for view in comparison.live] == runs[:3]
    assert compare(client, revs, live=0).live == []
    comparison = compare(client, {**revs, UNKNOWN: 1}, live=3)
    assert [parse_header(view).execution_id for view in comparison.live] == runs[:3]


def test_full_views_are_returned_up_to_the_limit_and_at_least_one(client: redis.Redis) -> None:
    views = dict(queued(client) for _ in range(4))
    size = len(next(iter(views.values())))
    revs: dict[str, int | None] = dict.fromkeys(views)
    assert compare(client, revs, whole=10 * size).changed == list(views.values())
    comparison = compare(client, revs, whole=2 * size + 10)
    assert (comparison.changed, comparison.omitted) == (list(views.values())[:2], list(views)[2:])
    comparison = compare(client, revs, whole=1)
    assert (len(comparison.changed), len(comparison.omitted)) == (1, 3)


def test_five_hundred_cost_one_command(client: redis.Redis) -> None:
    revs: dict[str, int | None] = {queued(client)[0]: 1 for _ in range(500)}
    before = client.info("commandstats")["cmdstat_eval"]["calls"] if client.eval("return 1", 0) else 0  # type: ignore[index]
    assert compare(client, revs).unchanged == 500
    assert client.info("commandstats")["cmdstat_eval"]["calls"] == before + 1  # type: ignore[index]
