"""The metrics: a snapshot, and text that Prometheus reads."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest

from bucket_client.connectors import connector_metrics, connector_metrics_text
from bucket_client.connectors.connector_metrics import DURATION_BOUNDS_S, MetricsRegistry

LINE = re.compile(r'# (HELP|TYPE) \w+ .+|(\w+)(\{\w+="[^"]*"\})? (\d+(\.\d+)?([eE][-+]?\d+)?)')


def test_the_text_is_in_the_format_of_prometheus() -> None:
    text = connector_metrics_text()
    assert text.endswith("\n")
    assert not [line for line in text.splitlines() if not LINE.fullmatch(line)]
    types = dict(re.findall(r"# TYPE (\w+) (\w+)", text))
    assert types.pop("bucket_connector_call_duration_seconds") == "histogram"
    assert set(types.values()) == {"counter"}
    assert all(name.endswith("_total") for name in types)


def test_each_bucket_counts_all_calls_up_to_its_bound() -> None:
    registry = MetricsRegistry()
    for status, duration_s in [(200, 0.005), (200, 0.02), (503, 7.0), (None, 99.0)]:
        registry.observe_call(status, duration_s)
    metrics = registry.snapshot()
    assert metrics.calls == {"2xx": 2, "3xx": 0, "4xx": 0, "5xx": 1, "no_reply": 1}
    buckets = metrics.call_duration.buckets
    assert [buckets[bound] for bound in DURATION_BOUNDS_S] == [1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3]
    assert (metrics.call_duration.count, metrics.call_duration.sum_s) == (4, 106.025)


def test_a_snapshot_does_not_change() -> None:
    registry = MetricsRegistry()
    snapshot = registry.snapshot()
    registry.count("sends", "failed")
    assert snapshot.sends["failed"] == 0
    assert registry.snapshot().sends["failed"] == 1


@pytest.mark.parametrize(
    "change", [lambda registry: registry.count("retries"), lambda registry: registry.observe_call(200, 0.5)]
)
def test_a_change_waits_for_the_thread_that_holds_the_lock(change: Callable[[MetricsRegistry], None]) -> None:
    registry = MetricsRegistry()
    thread = threading.Thread(target=change, args=[registry])
    with registry._lock:
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    thread.join()
    metrics = registry.snapshot()
    assert metrics.retries + metrics.calls["2xx"] == 1


def test_the_text_shows_what_the_snapshot_holds() -> None:
    metrics = connector_metrics()
    assert f'bucket_connector_sends_total{{outcome="failed"}} {metrics.sends["failed"]}\n' in connector_metrics_text()
    assert f"bucket_connector_retries_total {metrics.retries}\n" in connector_metrics_text()
