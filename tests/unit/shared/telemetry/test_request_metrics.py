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
observe_request("/run-basket", 0.06)
print(render_exposition().decode())
"""


def test_a_request_is_counted_and_timed_in_seconds() -> None:
    request_metrics.observe_request("/one", 0.06)
    text = request_metrics.render_exposition().decode()
    assert 'request_rate_total{endpoint="/one",service="api"} 1.0' in text
    assert 'latency_bucket{endpoint="/one",le="0.05",service="api"} 0.0' in text
    assert 'latency_bucket{endpoint="/one",le="0.1",service="api"} 1.0' in text
    assert {0.01, 0.05, 0.1, 0.5} <= set(request_metrics.BUCKETS_S)


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
    request_metrics.observe_request("/two", 0.1)
