"""Revisions are compared inside Redis: only what differs comes back, cut or whole, and no more than was asked for."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis

from shared.ids import new_execution_id
from shared.live.render import parse_header, render
from shared.live.revision_compare import ViewComparison, compare_views
from shared.live.view_trailer import WaitState, split_trailer
from shared.live.views import view_key
from tests.builders import NOON, accepted, claimed, complete_only

UNKNOWN = "1763700000_0000000000000000"


def queued(client: redis.Redis, **changes: object) -> tuple[str, bytes]:
    """The id and the view of a run that was just accepted."""
    advance = accepted(id=new_execution_id(NOON), **changes)
    view = render(advance.initial_record)
    assert view is not None
    client.set(view_key(advance.execution.id), view)
    return advance.execution.id, view


def compared(client: redis.Redis, asked: dict[str, int | None], *, whole: int = 0, live: int = 10) -> ViewComparison:
    return compare_views(client, asked, whole_bytes=whole, live_max=live)


def test_only_what_differs_comes_back_as_a_status_view(client: redis.Redis) -> None:
    (same, _), (older, shown) = queued(client), queued(client, tags=("a", '","steps":['))
    found = compared(client, {same: 1, UNKNOWN: 3, older: None})
    assert (found.unchanged, found.missing, found.omitted) == (1, [UNKNOWN], [])
    (view,) = found.changed
    status, mark = split_trailer(view)
    assert shown.startswith(status + b',"steps":[')
    assert (parse_header(view).execution_id, mark.wait_state) == (older, WaitState("queue"))
    assert mark.timing is not None
    assert mark.timing.agent == "only"
    assert [parse_header(view).execution_id for view in found.live] == [same]


@pytest.mark.parametrize(("rev", "is_changed"), [(None, True), (0, True), (1, False)])
def test_a_revision_is_compared_as_a_number(client: redis.Redis, rev: int | None, *, is_changed: bool) -> None:
    run, _ = queued(client)
    found = compared(client, {run: rev})
    assert (len(found.changed), found.unchanged) == ((1, 0) if is_changed else (0, 1))


@pytest.mark.parametrize("rev", [2, 10, 2**63 - 1])
def test_a_view_behind_what_the_caller_has_seen_counts_as_missing(client: redis.Redis, rev: int) -> None:
    run, _ = queued(client)
    assert compared(client, {run: rev}).missing == [run]


def test_what_is_no_view_of_this_release_counts_as_missing(client: redis.Redis) -> None:
    run, view = queued(client)
    for strange in (b"", b"{}", view.replace(b',"steps":[', b',"stairs":['), b"\xff" * 500):
        client.set(view_key(run), strange)
        assert compared(client, {run: None}).missing == [run]


def test_a_status_longer_than_the_first_look_is_found_too(client: redis.Redis) -> None:
    tags = tuple(f"{number:02}" + '"' * 62 for number in range(20))
    run, view = queued(client, tags=tags)
    (found,) = compared(client, {run: None}).changed
    assert view.startswith(split_trailer(found)[0])
    assert found.count(b'\\"') == 20 * 62


def test_some_of_the_unchanged_that_go_on_come_along_for_hints(client: redis.Redis) -> None:
    runs = [queued(client)[0] for _ in range(5)]
    done = accepted(id=new_execution_id(NOON))
    running = claimed(done.execution, "only").execution
    final = complete_only(running, now=NOON + timedelta(seconds=1)).execution
    view = render(type(done.initial_record)(final, (), 3, {"only": b"{}"}))
    assert view is not None
    client.set(view_key(final.id), view)
    asked: dict[str, int | None] = dict.fromkeys([final.id, *runs], 1)
    found = compared(client, asked, live=3)
    assert found.unchanged == 6
    assert [parse_header(view).execution_id for view in found.live] == runs[:3]
    assert compared(client, asked, live=0).live == []
    found = compared(client, {**asked, UNKNOWN: 1}, live=3)
    assert [parse_header(view).execution_id for view in found.live] == runs[:3]


def test_whole_views_come_while_there_is_room_and_one_at_least(client: redis.Redis) -> None:
    views = dict(queued(client) for _ in range(4))
    size = len(next(iter(views.values())))
    asked: dict[str, int | None] = dict.fromkeys(views)
    assert compared(client, asked, whole=10 * size).changed == list(views.values())
    found = compared(client, asked, whole=2 * size + 10)
    assert (found.changed, found.omitted) == (list(views.values())[:2], list(views)[2:])
    found = compared(client, asked, whole=1)
    assert (len(found.changed), len(found.omitted)) == (1, 3)


def test_five_hundred_cost_one_command(client: redis.Redis) -> None:
    asked: dict[str, int | None] = {queued(client)[0]: 1 for _ in range(500)}
    before = client.info("commandstats")["cmdstat_eval"]["calls"] if client.eval("return 1", 0) else 0  # type: ignore[index]
    assert compared(client, asked).unchanged == 500
    assert client.info("commandstats")["cmdstat_eval"]["calls"] == before + 1  # type: ignore[index]
