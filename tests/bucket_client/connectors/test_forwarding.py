"""Run, save and send as one: each part works while the others fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bucket_client.connectors import (
    BadConnectorSetting,
    ConnectorSettings,
    CoreSendFailed,
    FilenameRefused,
    ForwardReport,
    run_and_forward,
    run_and_forward_async,
)
from tests.bucket_client.connectors.test_core_replies import core, logged_in, replies


@dataclass(frozen=True)
class Run:
    execution_id: str = "exec-1"
    status: str = "completed"
    result: Any = None
    error: Any = None


class Client:
    """A client of Bucket whose run ends with ``outcome``, or raises it."""

    def __init__(self, outcome: Run | Exception) -> None:
        self._outcome = outcome
        self.runs: list[Any] = []

    def run_and_wait(
        self,
        basket: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 -- the name in Bucket's API
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        check: bool = True,
    ) -> Run:
        self.runs.append((basket, input, timeout, idempotency_key, check))
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class AsyncClient:
    """The async form of ``Client``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def run_and_wait(
        self,
        basket: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 -- the name in Bucket's API
        *,
        timeout: float | None = None,  # noqa: ASYNC109 -- the name in the client
        idempotency_key: str | None = None,
        check: bool = True,
    ) -> Run:
        await asyncio.sleep(0)
        return self._client.run_and_wait(basket, input, timeout=timeout, idempotency_key=idempotency_key, check=check)


def forward_async(client: Client, *args: Any, **options: Any) -> ForwardReport:
    return asyncio.run(run_and_forward_async(AsyncClient(client), *args, **options))


@pytest.fixture(params=[run_and_forward, forward_async], ids=["sync", "async"])
def forward(request: pytest.FixtureRequest) -> Callable[..., ForwardReport]:
    form: Callable[..., ForwardReport] = request.param
    return form


def test_a_run_is_saved_and_sent(forward: Callable[..., ForwardReport], tmp_path: Path) -> None:
    client = Client(Run(result={"sum": 3}))
    with core(tmp_path, replies(), bucket_dir=tmp_path / "bucket") as (server, settings):
        report = forward(client, "sums", {"a": 1}, timeout=9, idempotency_key="k", settings=settings)
    path = tmp_path / "bucket" / "exec-1.json"
    assert report == ForwardReport("exec-1", "completed", path, {"ok": True})
    assert (report.ran, report.saved, report.sent, report.is_complete) == (True, True, True, True)
    assert client.runs == [("sums", {"a": 1}, 9, "k", False)]
    payload = {"execution_id": "exec-1", "basket": "sums", "status": "completed", "result": {"sum": 3}, "error": None}
    assert server.payloads == [payload]
    assert json.loads(path.read_bytes()) == payload
    assert server.calls[0].headers["Idempotency-Key"] == "exec-1"


def test_a_run_that_failed_is_saved_and_sent_with_its_error(
    forward: Callable[..., ForwardReport], tmp_path: Path
) -> None:
    client = Client(Run(status="failed", error={"code": "step_failed"}))
    with core(tmp_path, replies(), bucket_dir=tmp_path) as (server, settings):
        report = forward(client, "sums", filename="runs/last.json", settings=settings)
    assert (report.status, report.is_complete) == ("failed", True)
    assert server.payloads[0]["error"] == {"code": "step_failed"}
    assert (tmp_path / "runs" / "last.json").exists()


def test_a_send_that_fails_does_not_stop_the_save(
    forward: Callable[..., ForwardReport], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with core(tmp_path, replies(500), bucket_dir=tmp_path, core_token="t0ken-of-core") as (server, settings):
        report = forward(Client(Run()), "sums", max_retries=2, backoff=0.001, settings=settings)
        assert len(server.calls) == 2
    assert isinstance(report.send_error, CoreSendFailed)
    assert (report.saved, report.sent, report.is_complete) == (True, False, False)
    assert (tmp_path / "exec-1.json").exists()
    assert [payload["execution_id"] for payload in logged_in(settings)] == ["exec-1"]
    assert [record.name for record in caplog.records if "send of exec-1" in record.message] == [
        "bucket_client.connectors"
    ]
    assert "t0ken" not in caplog.text


@pytest.mark.parametrize("filename", ["../out.json", ""])
def test_a_save_that_fails_does_not_stop_the_send(
    forward: Callable[..., ForwardReport], tmp_path: Path, caplog: pytest.LogCaptureFixture, filename: str
) -> None:
    with core(tmp_path, replies(), bucket_dir=tmp_path / "bucket") as (server, settings):
        report = forward(Client(Run()), "sums", filename=filename, settings=settings)
        assert len(server.calls) == 1
    assert isinstance(report.save_error, FilenameRefused)
    assert (report.saved, report.sent) == (False, True)
    assert "save of exec-1 failed" in caplog.text


def test_a_run_without_an_end_leaves_nothing_to_save_and_to_send(
    forward: Callable[..., ForwardReport], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    error = TimeoutError("not within 9 s")
    with core(tmp_path, replies(), bucket_dir=tmp_path) as (server, settings):
        report = forward(Client(error), "sums", settings=settings)
        assert server.calls == []
    assert report == ForwardReport(run_error=error)
    assert (report.ran, report.saved, report.sent) == (False, False, False)
    assert list(tmp_path.iterdir()) == []
    assert "run of sums failed: TimeoutError: not within 9 s" in caplog.text


def test_an_id_that_leads_out_of_the_folder_is_refused(forward: Callable[..., ForwardReport], tmp_path: Path) -> None:
    with core(tmp_path, replies(), bucket_dir=tmp_path / "bucket") as (_, settings):
        report = forward(Client(Run(execution_id="../exec")), "sums", settings=settings)
    assert isinstance(report.save_error, FilenameRefused)
    assert report.sent


def test_wrong_settings_are_said_before_the_run(
    forward: Callable[..., ForwardReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(Run())
    monkeypatch.setenv("BHIV_CORE_URL", "core")
    with pytest.raises(BadConnectorSetting):
        forward(client, "sums")
    with pytest.raises(ValueError, match="backoff"):
        forward(client, "sums", backoff=-1, settings=ConnectorSettings())
    assert client.runs == []
