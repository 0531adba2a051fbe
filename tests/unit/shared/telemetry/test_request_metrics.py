"""Requests are counted and timed, in one process and in several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.telemetry import request_metrics

COUNT_ONE = """
from shared.telemetry.request_metrics import render_exposition, observe_request
observe_request("/run-basket", "POST", 202, 0.06)
print(render_exposition().decode())
"""


def test_a_request_is_counted_and_timed_in_seconds() -> None:
    request_metrics.observe_request("/one", "GET", 200, 0.06)
    text = request_metrics.render_exposition().decode()
    assert 'bucket_http_requests_total{method="GET",route="/one",status="200"} 1.0' in text
    assert 'bucket_http_request_seconds_bucket{le="0.05",route="/one"} 0.0' in text
    assert 'bucket_http_request_seconds_bucket{le="0.1",route="/one"} 1.0' in text
    assert 'request_rate_total{endpoint="/one",service="api"} 1.0' in text
    assert 'latency_bucket{endpoint="/one",le="0.05",service="api"} 0.0' in text
    assert 'latency_bucket{endpoint="/one",le="0.1",service="api"} 1.0' in text
    assert {0.01, 0.05, 0.1, 0.5} <= set(request_metrics.BUCKETS_S)


def test_the_names_of_earlier_releases_have_the_sums_over_methods_and_statuses() -> None:
    for method, status in (("GET", 200), ("GET", 304), ("HEAD", 200)):
        request_metrics.observe_request("/old", method, status, 0.06)
    text = request_metrics.render_exposition().decode()
    assert 'request_rate_total{endpoint="/old",service="api"} 3.0' in text
    assert 'latency_bucket{endpoint="/old",le="0.1",service="api"} 3.0' in text
    assert 'latency_sum{endpoint="/old",service="api"} 0.18' in text
    assert text.count("# TYPE latency histogram") == 1


def test_methods_that_a_caller_made_up_are_one_label() -> None:
    for number in range(3):
        request_metrics.observe_request("/made-up", f"M{number}", 405, 0.01)
    text = request_metrics.render_exposition().decode()
    assert 'bucket_http_requests_total{method="other",route="/made-up",status="405"} 3.0' in text


def test_held_requests_are_a_number_of_the_present() -> None:
    request_metrics.count_held_polls(1)
    assert "bucket_held_polls 1.0" in request_metrics.render_exposition().decode()
    request_metrics.count_held_polls(-1)
    assert "bucket_held_polls 0.0" in request_metrics.render_exposition().decode()


def test_processes_that_share_a_directory_add_up(tmp_path: Path) -> None:
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    run = [sys.executable, "-c", COUNT_ONE]
    subprocess.run(run, env=environ, check=True, capture_output=True)
    second = subprocess.run(run, env=environ, check=True, capture_output=True, text=True).stdout
    assert 'request_rate_total{endpoint="/run-basket",service="api"} 2.0' in second
    assert 'latency_count{endpoint="/run-basket",service="api"} 2.0' in second


def test_a_figure_that_cannot_be_written_never_fails_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(request_metrics, "_labelled", full)
    request_metrics.observe_request("/two", "GET", 200, 0.1)
