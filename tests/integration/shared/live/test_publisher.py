"""What MongoDB has accepted is told to Redis; a Redis that is away never fails a run."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import redis

from shared.clock import boottime_s
from shared.domain.lifecycle.transitions import rescue
from shared.ids import new_execution_id
from shared.live import log_stream
from shared.live.log_stream import LogFilter
from shared.live.publisher import VIEW_STALE_AFTER_S, Publisher, SavedDecision
from shared.live.render import parse_header
from shared.live.views import ViewCache
from shared.queue.message import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER, list_key
from shared.telemetry.fleet_metrics import FleetMetrics
from tests.builders import NOON, TERMS, accepted


def publisher_of(client: redis.Redis) -> Publisher:
    return Publisher(client, ViewCache(client, live_s=15), FleetMetrics())


@pytest.fixture
def publisher(client: redis.Redis) -> Publisher:
    return publisher_of(client)


def test_an_accepted_run_is_rung_for_shown_and_told_of(client: redis.Redis, publisher: Publisher) -> None:
    advance = accepted("a", "b")
    publisher.publish_accepted([advance])
    run = advance.execution.id
    view = ViewCache(client, 15).get(run)
    assert view is not None
    assert (parse_header(view).status, parse_header(view).rev) == ("queued", 1)
    assert client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1
    told = [line["event"] for line in log_stream.read_latest(client, LogFilter(execution_id=run), 10).lines]
    assert told == ["execution.accepted"]


def test_a_batch_is_rung_for_shown_and_told_of_in_one_pipeline(client: redis.Redis, publisher: Publisher) -> None:
    advances = [accepted(id=new_execution_id(NOON)) for _ in range(30)]
    publisher.publish_accepted([*advances, accepted(id=new_execution_id(NOON), run_after=NOON + timedelta(hours=1))])
    views = ViewCache(client, 15)
    for advance in advances:
        view = views.get(advance.execution.id)
        assert view is not None
        assert parse_header(view).status == "queued"
    assert client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 30, "none is rung for that is for later"
    told = log_stream.read_latest(client, LogFilter(), 100).lines
    assert [line["execution_id"] for line in told[:30]] == [advance.execution.id for advance in advances]
    assert len(told) == 31


def test_what_was_asked_for_too_long_ago_shows_nothing_but_rings(client: redis.Redis, publisher: Publisher) -> None:
    advance = accepted()
    publisher.publish_decision(advance.initial_record, advance, as_of=boottime_s() - VIEW_STALE_AFTER_S - 0.1)
    assert ViewCache(client, 15).get(advance.execution.id) is None
    assert client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1


def test_a_process_that_stood_still_shows_no_accepted_run_as_queued_but_rings_for_it(client: redis.Redis) -> None:
    advance = accepted()
    at_once = Publisher(client, ViewCache(client, live_s=15), FleetMetrics(), view_age_max_s=-1)
    at_once.publish_accepted([advance])
    assert ViewCache(client, 15).get(advance.execution.id) is None
    assert client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1


def test_a_rescue_rings_ahead_of_first_offers(client: redis.Redis, publisher: Publisher) -> None:
    advance = rescue(accepted("a").execution, "a", NOON + TERMS.handoff, TERMS)
    assert advance is not None
    assert publisher.publish_rescue(advance.initial_record, advance, as_of=boottime_s(), reason="not_claimed")
    assert (
        client.llen(list_key("default", PRIORITY_REOFFER)),
        client.llen(list_key("default", PRIORITY_FIRST_OFFER)),
    ) == (1, 0)


def test_a_run_whose_moment_has_come_waits_in_line_like_any_other(client: redis.Redis, publisher: Publisher) -> None:
    later = NOON + timedelta(hours=1)
    advance = rescue(accepted("a", run_after=later).execution, "a", later, TERMS)
    assert advance is not None
    publisher.publish_rescue(advance.initial_record, advance, as_of=boottime_s(), reason="moment_come")
    assert (
        client.llen(list_key("default", PRIORITY_REOFFER)),
        client.llen(list_key("default", PRIORITY_FIRST_OFFER)),
    ) == (0, 1)


def test_only_lines_beyond_those_told_are_told(client: redis.Redis, publisher: Publisher) -> None:
    advance = accepted()
    record = replace(advance.initial_record, lines_total=1)
    publisher.publish_view(record, as_of=boottime_s(), published_seq=1)
    assert log_stream.read_latest(client, LogFilter(), 10).lines == []
    publisher.publish_view(record, as_of=boottime_s(), published_seq=0)
    assert [line["seq"] for line in log_stream.read_latest(client, LogFilter(), 10).lines] == [1]


def test_no_verb_raises_where_redis_is_away(nobody: redis.Redis) -> None:
    publisher = publisher_of(nobody)
    advance = accepted()
    publisher.publish_accepted([advance])
    publisher.publish_decision(advance.initial_record, advance, as_of=boottime_s())
    publisher.publish_decisions(
        [SavedDecision(advance.initial_record, advance, agent_durations=[("agent", 0.1)])], as_of=boottime_s()
    )
    publisher.publish_view(advance.initial_record, as_of=boottime_s(), published_seq=0)
    assert not publisher.publish_rescue(advance.initial_record, advance, as_of=boottime_s(), reason="not_claimed")
    assert publisher.extend_view(advance.execution.id, 1), "a view that cannot be kept is not rendered anew either"
