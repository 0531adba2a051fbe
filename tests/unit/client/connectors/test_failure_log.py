"""The failure log in one process: what an append and a rewrite do to the lines that are there."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from bucket_client.connectors.failure_log import FailureLog


@pytest.fixture
def log(tmp_path: Path) -> FailureLog:
    return FailureLog(tmp_path / "data" / "failed.log")


def append(log: FailureLog, number: int) -> None:
    log.append(b"%d" % number, f"key-{number}", {"error": "refused"})


def payloads_in(log: FailureLog) -> list[int]:
    return [logged.payload for logged in log.read().sends]


def test_a_line_holds_the_payload_the_key_and_the_error(log: FailureLog) -> None:
    log.append(b'{"a": [1, "two"]}', "key", {"error": "refused", "calls": 3})
    entry = json.loads(log.path.read_bytes())
    assert entry["payload"] == {"a": [1, "two"]}
    assert (entry["idempotency_key"], entry["error"], entry["calls"]) == ("key", "refused", 3)
    assert log.path.read_bytes().count(b"\n") == 1


def test_others_cannot_read_the_log(log: FailureLog) -> None:
    append(log, 1)
    log.remove(log.read().sends)
    append(log, 2)
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_a_read_without_a_log_makes_no_file(log: FailureLog) -> None:
    assert payloads_in(log) == []
    assert not log.path.parent.exists()


def test_lines_that_were_appended_after_the_read_stay(log: FailureLog) -> None:
    append(log, 1)
    read = log.read().sends
    append(log, 2)
    log.remove(read)
    assert payloads_in(log) == [2]


def test_two_sends_of_one_payload_with_one_key_are_two_lines(log: FailureLog) -> None:
    append(log, 1)
    append(log, 1)
    log.remove(log.read().sends[:1])
    assert payloads_in(log) == [1]


def test_an_append_does_not_continue_a_torn_line(log: FailureLog) -> None:
    append(log, 1)
    append(log, 2)
    log.path.write_bytes(log.path.read_bytes()[:-20])
    append(log, 3)
    assert payloads_in(log) == [1, 3]
    assert log.read().unreadable == (2,)


@pytest.mark.parametrize(
    "damaged",
    [
        b"{",
        b"\0\0\0\0",
        b"\xff\xfe",
        b'{"a": 1}',
        b"[]",
        b'{"id": "x", "payload": 1, "idempotency_key": "a\\nb"}',
        b'{"id": "x", "payload": NaN, "idempotency_key": "k"}',
        b"one\rtwo\r",
    ],
)
def test_a_damaged_line_is_kept_and_stops_no_other_line(log: FailureLog, damaged: bytes) -> None:
    append(log, 1)
    log.path.write_bytes(damaged + b"\n" + log.path.read_bytes())
    append(log, 2)
    content = log.read()
    assert ([logged.payload for logged in content.sends], content.unreadable) == ([1, 2], (1,))
    log.remove(content.sends)
    assert log.path.read_bytes() == damaged + b"\n"


def test_a_write_that_the_disk_took_in_part_is_undone(log: FailureLog, monkeypatch: pytest.MonkeyPatch) -> None:
    append(log, 1)
    before, write = log.path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    with pytest.raises(OSError, match="only a part"):
        append(log, 2)
    assert log.path.read_bytes() == before


def test_a_rewrite_that_fails_loses_nothing(log: FailureLog, monkeypatch: pytest.MonkeyPatch) -> None:
    append(log, 1)
    append(log, 2)

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        log.remove(log.read().sends[:1])
    assert payloads_in(log) == [1, 2]


def test_a_symbolic_link_to_the_log_stays_a_link(log: FailureLog, tmp_path: Path) -> None:
    append(log, 1)
    link = tmp_path / "link.log"
    link.symlink_to(log.path)
    linked = FailureLog(link)
    linked.remove(linked.read().sends)
    assert link.is_symlink()
    assert payloads_in(log) == []


def test_only_one_holds_the_lock_of_the_resend_and_appends_do_not_wait_for_it(log: FailureLog) -> None:
    append(log, 1)
    with log.resending() as first:
        with FailureLog(log.path).resending() as second:
            append(log, 2)
        assert (first, second) == (True, False)
    with log.resending() as third:
        assert third
