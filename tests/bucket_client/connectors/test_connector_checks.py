"""The check of the connectors: passes on a good system, says what is wrong on another, and leaves nothing behind."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bucket_client.connectors import ConnectorSettings, check_connectors
from bucket_client.connectors.failure_log import FailureLog
from tests.bucket_client.connectors.test_core_replies import core, replies


def test_all_checks_pass_and_neither_core_nor_the_real_log_is_touched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with core(tmp_path, replies(), bucket_dir=tmp_path / "bucket", core_token="t0ken") as (server, settings):
        results = check_connectors(settings=settings)
        assert server.calls == []
    assert [(result.name, result.passed) for result in results] == [
        ("settings", True),
        ("bucket folder", True),
        ("retry", True),
        ("failure log", True),
        ("resend", True),
    ]
    assert [path.name for path in tmp_path.rglob("*")] == ["bucket"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_bucket_folder_that_cannot_be_written_fails_its_check_alone(tmp_path: Path) -> None:
    (tmp_path / "bucket").write_text("a file")
    results = check_connectors(settings=ConnectorSettings(bucket_dir=tmp_path / "bucket"))
    assert [result.name for result in results if not result.passed] == ["bucket folder"]
    assert "FilenameRefused" in results[1].detail


def test_a_failure_log_that_loses_the_payload_fails_its_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailureLog, "append", lambda *_: None)
    results = check_connectors(settings=ConnectorSettings(bucket_dir=tmp_path))
    assert [result.name for result in results if not result.passed] == ["failure log", "resend"]


def test_settings_that_are_wrong_are_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BHIV_CORE_URL", "core")
    (result,) = check_connectors()
    assert not result.passed
    assert "BHIV_CORE_URL" in result.detail
