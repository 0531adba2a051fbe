"""Metrics of the fleet: written into Redis pipelines, read back by the scrape, with any content of Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fakeredis
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from shared.telemetry.fleet_collector import FleetCollector
from shared.telemetry.fleet_counters import FleetCounters
from shared.telemetry.request_metrics import render_exposition

FLEET = FleetCounters()


@pytest.fixture
def client() -> fakeredis.FakeStrictRedis:
    return fakeredis.FakeStrictRedis()


def write(client: redis.Redis, *verbs: Callable[[Any], None]) -> None:
    pipe = client.pipeline(transaction=False)
    for verb in verbs:
        verb(pipe)
    pipe.execute()


OF_THIS_PROCESS = ("bucket_limits_", "bucket_held_polls", "bucket_http_", "bucket_store_")
"""What the process counts itself, also in tests that ran in it before."""


def scraped(client: redis.Redis, **options: Any) -> dict[tuple[str, ...], float]:
    """Return the fleet's metrics as {(sample, label values...): figure}."""
    text = render_exposition(FleetCollector(client, **options)).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("bucket_") and not sample.name.startswith(OF_THIS_PROCESS)
    }


def test_an_integrator_is_not_told_the_names_of_baskets(client: fakeredis.FakeStrictRedis) -> None:
    for basket in ("one's own", "another's"):
        write(client, lambda pipe, basket=basket: FLEET.count_ended(pipe, {(basket, "completed"): 1}, ()))
    figures = scraped(client, names_baskets=False)
    assert {key: value for key, value in figures.items() if key[0].startswith("bucket_executions")} == {
        ("bucket_executions_total", "other", "completed"): 2
    }


def test_executions_are_counted_by_basket_and_status(client: fakeredis.FakeStrictRedis) -> None:
    for status in ("completed", "completed", "failed"):
        write(client, lambda pipe, status=status: FLEET.count_ended(pipe, {("working_test", status): 1}, ()))
    figures = scraped(client)
    assert figures["bucket_executions_total", "working_test", "completed"] == 2
    assert figures["bucket_executions_total", "working_test", "failed"] == 1


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", '","completed"]', "é + x.y", "\ud800"])
def test_a_baskets_name_may_hold_anything(client: fakeredis.FakeStrictRedis, name: str) -> None:
    write(client, lambda pipe: FLEET.count_ended(pipe, {(name, "failed"): 1}, ()))
    assert scraped(client)["bucket_executions_total", name.replace("\ud800", "?"), "failed"] == 1


def test_baskets_beyond_the_cap_are_counted_together_and_the_hash_stays_small(
    client: fakeredis.FakeStrictRedis,
) -> None:
    for at in range(1600):
        write(client, lambda pipe, at=at: FLEET.count_ended(pipe, {(f"basket {at}", "completed"): 1}, ()))
    write(client, lambda pipe: FLEET.count_ended(pipe, {("basket 7", "completed"): 1}, ()))
    assert client.hlen("metrics:executions") == 1501
    counted = {key: figure for key, figure in scraped(client).items() if key[0] == "bucket_executions_total"}
    assert len(counted) <= 501
    assert sum(counted.values()) == 1601
    assert counted["bucket_executions_total", "basket 7", "completed"] == 2


def test_steps_make_a_cumulative_histogram(client: fakeredis.FakeStrictRedis) -> None:
    for seconds in (0.005, 0.01, 0.3, 9999.0):
        write(client, lambda pipe, seconds=seconds: FLEET.count_ended(pipe, {}, [("cashflow_analyzer", seconds)]))
    figures = scraped(client)
    bucket = "bucket_step_seconds_bucket"
    assert figures[bucket, "cashflow_analyzer", "0.01"] == 2
    assert figures[bucket, "cashflow_analyzer", "0.1"] == 2
    assert figures[bucket, "cashflow_analyzer", "0.5"] == 3
    assert figures[bucket, "cashflow_analyzer", "+Inf"] == 4
    assert figures["bucket_step_seconds_count", "cashflow_analyzer"] == 4
    assert figures["bucket_step_seconds_sum", "cashflow_analyzer"] == pytest.approx(9999.315)


def test_rescues_are_counted(client: fakeredis.FakeStrictRedis) -> None:
    write(client, lambda pipe: FLEET.count_rescue(pipe, "lease"), lambda pipe: FLEET.count_rescue(pipe, "lease"))
    figures = scraped(client)
    assert figures["bucket_rescues_total", "lease"] == 2


def test_a_queues_depth_is_that_of_both_its_lists(client: fakeredis.FakeStrictRedis) -> None:
    client.rpush("default", "a", "b")
    client.rpush("default\x06\x163", "c")
    client.rpush("long\x06\x163", "d")
    figures = scraped(client)
    assert figures["bucket_queue_depth", "default"] == 3
    assert figures["bucket_queue_depth", "long"] == 1


def test_a_scrape_while_redis_is_away_says_so_and_nothing_else(client: fakeredis.FakeStrictRedis) -> None:
    write(client, lambda pipe: FLEET.count_rescue(pipe, "lease"))
    assert scraped(client)["bucket_redis_up",] == 1
    server = fakeredis.FakeServer()
    server.connected = False
    assert scraped(fakeredis.FakeStrictRedis(server=server)) == {("bucket_redis_up",): 0}


class Loading(fakeredis.FakeStrictRedis):
    """A Redis that still loads its file: it accepts the connection and refuses each command."""

    def pipeline(self, **_: Any) -> Any:
        class Refusing:
            def execute(self, **_: Any) -> list[Exception]:
                return [redis.BusyLoadingError()] * 8

            def __getattr__(self, _: str) -> Any:
                return lambda *_: None

        return Refusing()


def test_a_redis_that_refuses_everything_is_away() -> None:
    assert scraped(Loading()) == {("bucket_redis_up",): 0}


def test_foreign_values_in_redis_do_not_fail_the_scrape(client: fakeredis.FakeStrictRedis) -> None:
    client.set("metrics:executions", "not a hash")
    client.set("long", "not a list")
    client.hset("metrics:steps", "not json", 1)
    client.hset("metrics:steps", '["agent", 99]', 1)
    client.hset("metrics:rescues", b"\xff", "many")
    client.rpush("default", "a")
    figures = scraped(client)
    assert figures["bucket_queue_depth", "default"] == 1
    assert ("bucket_queue_depth", "long") not in figures


def test_failed_attempts_are_counted_by_agent_and_code_and_retries_together(client: fakeredis.FakeStrictRedis) -> None:
    write(client, lambda pipe: FLEET.count_failures(pipe, {("echo", "boom"): 2, ("law", "timeout"): 1}, 2))
    write(client, lambda pipe: FLEET.count_failures(pipe, {("echo", "boom"): 1}, 0))
    write(client, lambda pipe: FLEET.count_failures(pipe, {}, 0))
    figures = scraped(client)
    assert figures["bucket_step_failures_total", "echo", "boom"] == 3
    assert figures["bucket_step_failures_total", "law", "timeout"] == 1
    assert figures["bucket_retries_total",] == 2


def test_failures_of_ever_new_codes_become_one_label(client: fakeredis.FakeStrictRedis) -> None:
    for at in range(510):
        write(client, lambda pipe, at=at: FLEET.count_failures(pipe, {("echo", f"code {at}"): 1}, 0))
    figures = scraped(client)
    assert figures["bucket_step_failures_total", "other", "other"] == 10
    assert figures["bucket_step_failures_total", "echo", "code 0"] == 1


def test_the_depth_is_that_of_the_store_if_it_is_known(client: fakeredis.FakeStrictRedis) -> None:
    client.lpush("default", "message")
    assert scraped(client)["bucket_queue_depth", "default"] == 1
    assert scraped(client, depths={"default": 7})["bucket_queue_depth", "default"] == 7
