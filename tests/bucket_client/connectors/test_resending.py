"""The resend of the failure log, with a real server and real processes that append, resend and die."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

import bucket_client.connectors
from bucket_client.connectors import ConnectorSettings, ResendReport, connector_metrics, resend_failed
from bucket_client.connectors.failure_log import FailureLog, LoggedSend
from tests.bucket_client.connectors.test_core_replies import (
    CoreHandler,
    CoreServer,
    core,
    logged_in,
    replies,
)
from tests.waiting import wait_until

SOURCE = Path(bucket_client.connectors.__file__).parents[2]
APPEND = """
import sys
from pathlib import Path
from bucket_client.connectors.failure_log import FailureLog
log, name, count = FailureLog(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
for number in range(count):
    log.append(b'"%s-%d-%s"' % (name.encode(), number, b"x" * 20_000), f"{name}-{number}", {})
"""
RESEND = "from bucket_client.connectors import resend_failed; print(resend_failed())"


def start(program: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **variables}
    return subprocess.Popen([sys.executable, "-c", program, *arguments], env=environment, stdout=subprocess.PIPE)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def fill(settings: ConnectorSettings, count: int) -> FailureLog:
    log = FailureLog(settings.failed_log)
    for number in range(count):
        log.append(b"%d" % number, f"key-{number}", {})
    return log


class Held:
    """Holds the call with the given number until it is released; replies to all others at once."""

    def __init__(self, number: int) -> None:
        self.number, self.release = number, threading.Event()

    def __call__(self, handler: CoreHandler) -> None:
        if len(handler.server.calls) == self.number:
            while not (self.release.wait(0.01) or handler.server.closing.is_set()):
                pass
        replies()(handler)


def test_a_resend_empties_the_log_and_keeps_the_keys_and_the_order(tmp_path: Path) -> None:
    before = connector_metrics().resends
    with core(tmp_path, replies()) as (server, settings):
        fill(settings, 3)
        assert resend_failed(settings=settings) == ResendReport(sent=3)
        assert [(call.payload, call.headers["Idempotency-Key"]) for call in server.calls] == [
            (0, "key-0"),
            (1, "key-1"),
            (2, "key-2"),
        ]
        assert settings.failed_log.read_bytes() == b""
        assert resend_failed(settings=settings) == ResendReport()
        assert len(server.calls) == 3
    assert connector_metrics().resends["sent"] - before["sent"] == 3


def test_a_line_is_removed_only_when_it_was_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with core(tmp_path, replies(), replies(500), replies(400), replies()) as (server, settings):
        fill(settings, 4)
        assert resend_failed(settings=settings) == ResendReport(sent=2, failed=2)
        assert len(server.calls) == 4  # each is sent once
        assert logged_in(settings) == [1, 2]
    assert sum("failed again" in record.message for record in caplog.records) == 2


def test_a_damaged_line_is_kept_and_reported_and_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "bucket_client.connectors")
    with core(tmp_path, replies()) as (server, settings):
        log = fill(settings, 2)
        log.path.write_bytes(b'{"id": "torn", "payl\n' + log.path.read_bytes())
        assert resend_failed(settings=settings) == ResendReport(sent=2, unreadable=1)
        assert server.payloads == [0, 1]
        assert log.path.read_bytes() == b'{"id": "torn", "payl\n'
    assert any("line 1" in record.getMessage() for record in caplog.records)


def test_a_resend_without_a_log_makes_nothing(tmp_path: Path) -> None:
    with core(tmp_path, replies()) as (_, settings):
        assert resend_failed(settings=settings) == ResendReport()
    assert list(tmp_path.iterdir()) == []


def test_an_append_does_not_wait_for_a_resend_and_is_not_lost_by_it(tmp_path: Path) -> None:
    held = Held(1)
    with core(tmp_path, held) as (server, settings):
        log = fill(settings, 1)
        reports: list[ResendReport] = []
        resend = threading.Thread(target=lambda: reports.append(resend_failed(settings=settings)))
        resend.start()
        wait_until(lambda: server.calls, what="the first call")
        log.append(b'"meanwhile"', "key", {})  # a lock held while sending would let this wait for ever
        held.release.set()
        resend.join()
    assert reports == [ResendReport(sent=1)]
    assert logged_in(settings) == ["meanwhile"]


def test_a_second_resend_returns_at_once_and_sends_nothing(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    held = Held(1)
    with core(tmp_path, held) as (server, settings):
        fill(settings, 3)
        variables = {"BHIV_CORE_URL": server.url, "BHIV_FAILED_LOG": str(settings.failed_log)}
        processes.append(start(RESEND, **variables))
        wait_until(lambda: server.calls, what="the first call")
        assert resend_failed(settings=settings) == ResendReport()
        held.release.set()
        printed, _ = processes[0].communicate(timeout=20)
        assert printed.strip() == b"ResendReport(sent=3, failed=0, unreadable=0)"
        assert server.payloads == [0, 1, 2]
        assert logged_in(settings) == []


def test_a_resend_that_is_killed_loses_no_line_and_the_next_one_goes_on(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    with core(tmp_path, Held(3)) as (server, settings):
        fill(settings, 5)
        variables = {"BHIV_CORE_URL": server.url, "BHIV_FAILED_LOG": str(settings.failed_log)}
        processes.append(start(RESEND, **variables))
        wait_until(lambda: len(server.calls) == 3, what="the third call")
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        assert logged_in(settings) == [2, 3, 4]  # the call of 2 was under way
        assert resend_failed(settings=settings) == ResendReport(sent=3)
    assert server.payloads == [0, 1, 2, 2, 3, 4]
    keys = [call.headers["Idempotency-Key"] for call in server.calls]
    assert keys[2] == keys[3]


def test_processes_that_append_and_resend_at_once_tear_and_lose_no_line(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    with core(tmp_path, replies()) as (server, settings):
        path = str(settings.failed_log)
        processes += [start(APPEND, path, name, "40") for name in ("a", "b")]
        while any(process.poll() is None for process in processes):
            assert resend_failed(settings=settings).unreadable == 0
        assert [process.returncode for process in processes] == [0, 0]
        resend_failed(settings=settings)
        assert logged_in(settings) == []
    received = sorted(call.headers["Idempotency-Key"] for call in server.calls)
    assert received == sorted(f"{name}-{number}" for name in ("a", "b") for number in range(40))


def test_processes_that_only_append_tear_and_lose_no_line(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    path = tmp_path / "failed.log"
    processes += [start(APPEND, str(path), name, "100") for name in ("a", "b")]
    assert [process.wait(timeout=30) for process in processes] == [0, 0]
    content = FailureLog(path).read()
    assert content.unreadable == ()
    assert len({logged.payload for logged in content.sends}) == 200


def test_many_lines_are_removed_in_groups_and_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bucket_client.connectors.resending.REWRITES_MAX", 4)
    removals: list[int] = []
    remove = FailureLog.remove

    def record(log: FailureLog, sent: Collection[LoggedSend]) -> None:
        removals.append(len(sent))
        remove(log, sent)

    monkeypatch.setattr(FailureLog, "remove", record)
    with CoreServer(replies()) as server:
        settings = ConnectorSettings(server.url, failed_log=tmp_path / "failed.log")
        fill(settings, 9)
        assert resend_failed(settings=settings) == ResendReport(sent=9)
    assert removals == [3, 3, 3]
    assert logged_in(settings) == []
