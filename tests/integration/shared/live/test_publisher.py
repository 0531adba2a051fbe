"""The publisher writes messages, views and log lines to Redis after a save; a missing Redis never fails a run."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import redis

from shared.clock import boottime_s
from shared.domain.execution import PRIORITY_FIRST_OFFER, PRIORITY_REOFFER
from shared.domain.lifecycle.transitions import rescue
from shared.ids import new_execution_id
from shared.live import log_stream
from shared.live.log_stream import LogFilter
from shared.live.publisher import Publisher, SavedDecision
from shared.live.render import parse_header
from shared.live.views import VIEW_STALE_AFTER_S, ViewCache
from shared.queue.message import list_key
from shared.telemetry.fleet_counters import FleetCounters
from tests.builders import NOON, TIMINGS, accept_decision


def publisher_of(client: redis.Redis) -> Publisher:
    return Publisher(client, ViewCache(client, live_ttl_s=15), FleetCounters())


@pytest.fixture
def publisher(client: redis.Redis) -> Publisher:
    return publisher_of(client)


def test_an_accepted_run_gets_a_message_a_view_and_log_lines(client: redis.Redis, publisher: Publisher) -> None:
    decision = accept_decision("a", "b")
    publisher.publish_accepted([decision])
    run = decision.execution.id
    view = ViewCache(client, 15).get(decision.execution.integrator, run)
    assert view is not None
    assert (parse_header(view).status, parse_header(view).rev) == ("queued", 1)
    assert client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1
    events = [line["event"] for line in log_stream.read_latest(client, LogFilter(None, execution_id=run), 10).lines]
    assert events == ["execution.accepted"]


def test_a_batch_gets_messages_views_and_log_lines_in_one_pipeline(client: redis.Redis, publisher: Publisher) -> None:
    advances = [accept_decision(id=new_execution_id(NOON)) for _ in range(30)]
    publisher.publish_accepted(
        [*advances, accept_decision(id=new_execution_id(NOON), run_after=NOON + timedelta(hours=1))]
    )
    views = ViewCache(client, 15)
    for decision in advances:
        view = views.get(decision.execution.integrator, decision.execution.id)
        assert view is not None
        assert parse_header(view).status == "queued"
    assert client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 30, "a run scheduled for later gets no message"
    lines = log_stream.read_latest(client, LogFilter(None), 100).lines
    assert [line["execution_id"] for line in lines[:30]] == [decision.execution.id for decision in advances]
    assert len(lines) == 31


def test_a_late_accept_writes_no_view_but_sends_the_message(client: redis.Redis, publisher: Publisher) -> None:
    decision = accept_decision()
    publisher.publish_decision(decision.initial_record, decision, as_of=boottime_s() - VIEW_STALE_AFTER_S - 0.1)
    assert ViewCache(client, 15).get(decision.execution.integrator, decision.execution.id) is None
    assert client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1


def test_a_paused_process_writes_no_queued_view_but_sends_the_message(client: redis.Redis) -> None:
    decision = accept_decision()
    at_once = Publisher(client, ViewCache(client, live_ttl_s=15), FleetCounters(), view_age_max_s=-1)
    at_once.publish_accepted([decision])
    assert ViewCache(client, 15).get(decision.execution.integrator, decision.execution.id) is None
    assert client.llen(list_key("default", PRIORITY_FIRST_OFFER)) == 1


def test_the_message_of_a_rescue_goes_before_first_offers(client: redis.Redis, publisher: Publisher) -> None:
    decision = rescue(accept_decision("a").execution, "a", NOON + TIMINGS.handoff, TIMINGS)
    assert decision is not None
    assert publisher.publish_rescue(decision.initial_record, decision, as_of=boottime_s(), reason="not_claimed")
    assert (
        client.llen(list_key("default", PRIORITY_REOFFER)),
        client.llen(list_key("default", PRIORITY_FIRST_OFFER)),
    ) == (1, 0)


def test_a_run_whose_schedule_has_come_waits_in_the_queue_like_any_other(
    client: redis.Redis, publisher: Publisher
) -> None:
    later = NOON + timedelta(hours=1)
    decision = rescue(accept_decision("a", run_after=later).execution, "a", later, TIMINGS)
    assert decision is not None
    publisher.publish_rescue(decision.initial_record, decision, as_of=boottime_s(), reason="moment_come")
    assert (
        client.llen(list_key("default", PRIORITY_REOFFER)),
        client.llen(list_key("default", PRIORITY_FIRST_OFFER)),
    ) == (0, 1)


def test_only_new_lines_are_published(client: redis.Redis, publisher: Publisher) -> None:
    decision = accept_decision()
    record = replace(decision.initial_record, lines_total=1)
    publisher.publish_view(record, as_of=boottime_s(), published_seq=1)
    assert log_stream.read_latest(client, LogFilter(None), 10).lines == []
    publisher.publish_view(record, as_of=boottime_s(), published_seq=0)
    assert [line["seq"] for line in log_stream.read_latest(client, LogFilter(None), 10).lines] == [1]


def test_no_method_raises_while_redis_is_away(absent_redis: redis.Redis) -> None:
    publisher = publisher_of(absent_redis)
    decision = accept_decision()
    publisher.publish_accepted([decision])
    publisher.publish_decision(decision.initial_record, decision, as_of=boottime_s())
    publisher.publish_decisions(
        [SavedDecision(decision.initial_record, decision, agent_durations=[("agent", 0.1)])], as_of=boottime_s()
    )
    publisher.publish_view(decision.initial_record, as_of=boottime_s(), published_seq=0)
    assert not publisher.publish_rescue(decision.initial_record, decision, as_of=boottime_s(), reason="not_claimed")
    assert publisher.extend_view(decision.execution.integrator, decision.execution.id, 1), (
        "a view that cannot be extended is not rendered again either"
    )
