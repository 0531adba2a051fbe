"""The charts of the overview: which bar is how high, and what they say to who cannot see them."""

from __future__ import annotations

from typing import Any

from api.dashboard.charts import Part, latency_chart, throughput_chart


def minute(number: int, completed: int = 0, failed: int = 0, p50: int | None = None, p95: int | None = None) -> Any:
    return {
        "at": f"2026-01-01T12:{number:02}:00.000Z",
        "submitted": 0,
        "completed": completed,
        "failed": failed,
        "cancelled": 0,
        "duration_ms": {"p50": p50, "p95": p95, "p99": p95},
    }


def test_the_minute_with_the_most_ended_runs_has_the_full_height() -> None:
    chart = throughput_chart([minute(0), minute(1, completed=3, failed=1), minute(2, completed=1)])
    [high, low] = chart.bars
    assert (high.x, low.x, chart.width) == (10, 20, 30)
    assert list(high.parts) == [Part("completed", 25.0, 75.0), Part("failed", 0.0, 25.0)]
    assert list(low.parts) == [Part("completed", 75.0, 25.0)]
    assert high.text == "12:01 UTC: 3 completed, 1 failed"
    assert (chart.top, chart.text) == ("4 a minute", "5 runs ended, at most 4 in a minute")


def test_the_median_stands_in_front_of_the_95th_percentile() -> None:
    chart = latency_chart([minute(0, p50=100, p95=2_000), minute(1), minute(2, p50=1, p95=500)])
    [slow, fast] = chart.bars
    assert list(slow.parts) == [Part("p95", 0.0, 100.0), Part("p50", 95.0, 5.0)]
    assert list(fast.parts) == [Part("p95", 75.0, 25.0), Part("p50", 99.0, 1.0)], "the shortest can still be seen"
    assert slow.text == "12:00 UTC: 50 % within 100 ms, 95 % within 2.0 s"
    assert chart.top == "2.0 s"


def test_an_hour_without_runs_has_no_bars_and_says_so() -> None:
    for chart in (throughput_chart([minute(0)]), latency_chart([minute(0)]), throughput_chart([])):
        assert (chart.bars, chart.top, chart.text) == ([], "", "No run ended")
