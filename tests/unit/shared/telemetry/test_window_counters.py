"""Counters by windows of time: sums, percentiles, limits, and keys that expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import fakeredis
import pytest

from shared.telemetry.fleet_counters import FleetCounters
from shared.telemetry.window_counters import CODES_MAX, RunEvent, WindowCounts, read_counts

NOW = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)


@pytest.fixture
def client() -> fakeredis.FakeStrictRedis:
    return fakeredis.FakeStrictRedis()


def count(client: fakeredis.FakeStrictRedis, *events: RunEvent) -> None:
    pipe = client.pipeline(transaction=False)
    FleetCounters().count_ended(pipe, {("b", "failed"): 1}, [("echo", 0.5)], events)
    pipe.execute()


def ended(seconds_ago: float = 0, kind: str = "completed", integrator: str = "acme", **more: object) -> RunEvent:
    return RunEvent(integrator, NOW - timedelta(seconds=seconds_ago), kind, **more)  # type: ignore[arg-type]


def test_events_are_counted_in_the_windows_that_they_lie_in(client: fakeredis.FakeStrictRedis) -> None:
    count(client, ended(0), ended(290), ended(400), ended(3_000), ended(4_600), ended(86_000), ended(90_000))
    windows = read_counts(client, "acme", NOW).windows
    assert {name: window.counts["completed"] for name, window in windows.items()} == {"5m": 2, "1h": 4, "24h": 6}


def test_each_integrator_has_its_own_and_all_together_theirs(client: fakeredis.FakeStrictRedis) -> None:
    count(client, ended(), ended(integrator="zenith", kind="failed", error_code="boom"))
    counted = {
        name: read_counts(client, name, NOW).windows["5m"].counts["completed"]
        for name in ("acme", "zenith", None, "nobody")
    }
    assert counted == {"acme": 1, "zenith": 0, None: 1, "nobody": 0}
    assert read_counts(client, None, NOW).windows["1h"].failures == {"boom": 1}
    assert client.hget("metrics:executions", b'["b","failed"]') == b"1", "the other counters are written by it too"


def test_percentiles_are_within_five_percent(client: fakeredis.FakeStrictRedis) -> None:
    count(client, *(ended(duration_s=ms / 1_000) for ms in range(1, 1_001)))
    window = read_counts(client, "acme", NOW).windows["5m"]
    for share, true_ms in ((0.5, 500), (0.95, 950), (0.99, 990)):
        assert window.percentile_ms(share) == pytest.approx(true_ms, rel=0.05)


@pytest.mark.parametrize("duration_s", [0, 0.0004, 86_400.0])
def test_the_shortest_and_the_longest_durations_have_a_bucket(
    client: fakeredis.FakeStrictRedis, duration_s: float
) -> None:
    count(client, ended(duration_s=duration_s))
    found = read_counts(client, "acme", NOW).windows["24h"].percentile_ms(0.99)
    assert found == pytest.approx(max(duration_s * 1_000, 1), rel=0.05, abs=1)


def test_a_series_has_each_slot_of_its_window_the_oldest_first(client: fakeredis.FakeStrictRedis) -> None:
    count(client, ended(0), ended(20), ended(31, kind="failed", error_code="boom"), ended(3_630), ended(86_430))
    recent = read_counts(client, "acme", NOW)
    minutes, quarters = recent.series("1h"), recent.series("24h")
    noon = NOW.replace(second=0)
    assert [slot.at for slot in minutes] == [noon - timedelta(minutes=age) for age in range(60, -1, -1)]
    assert [slot.at for slot in quarters] == [noon - timedelta(minutes=15 * age) for age in range(96, -1, -1)]
    completed = {60 - at: slot.counted.counts["completed"] for at, slot in enumerate(minutes)}
    assert {age: count for age, count in completed.items() if count} == {0: 2, 60: 1}
    assert [slot.counted.failures for slot in minutes if slot.counted.failures] == [{"boom": 1}]
    assert [slot.counted.counts["completed"] for slot in (quarters[0], quarters[-2], quarters[-1])] == [1, 0, 2]
    assert quarters[-2].counted.counts["failed"] == 1


def test_without_runs_there_is_no_percentile() -> None:
    assert WindowCounts().percentile_ms(0.5) is None


def test_codes_beyond_the_limit_are_counted_together(client: fakeredis.FakeStrictRedis) -> None:
    count(client, *(ended(kind="failed", error_code=f"code-{at}") for at in range(CODES_MAX + 5)))
    count(client, ended(kind="failed", error_code="code-0"))
    failures = read_counts(client, "acme", NOW).windows["5m"].failures
    assert (len(failures), failures["other"], failures["code-0"]) == (CODES_MAX + 1, 5, 2)


def test_the_hashes_expire_and_strange_ones_do_no_harm(client: fakeredis.FakeStrictRedis) -> None:
    count(client, ended(error_code="\ud800"))
    keys = client.keys("metrics:window:*")
    assert len(keys) == 4
    assert all(0 < client.ttl(key) <= 90_000 for key in keys)
    client.hset(keys[0], "d-1", "x")
    assert read_counts(client, "acme", NOW).windows["5m"].counts["completed"] <= 1
