"""Timestamps: RFC 3339 is read, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shared.timestamps import parse_rfc3339

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21T12:00:00Z", NOON),
        ("2026-11-21t12:00:00z", NOON),
        ("2026-11-21T13:30:00+01:30", NOON),
        ("2026-11-21T12:00:00.25Z", NOON + timedelta(milliseconds=250)),
        ("2026-11-21T12:00:00.1234567Z", NOON + timedelta(microseconds=123_456)),
        ("2026-11-21T12:00:00.123456789-00:00", NOON + timedelta(microseconds=123_456)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_timestamp_with_any_offset_is_read_as_utc(text: str, expected: datetime) -> None:
    assert parse_rfc3339(text) == expected
    assert parse_rfc3339(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026-11-21", "2026-11-21 12:00:00Z", "2026-11-21T12:00:00", "2026-11-21T12:00Z", "20261121T120000Z",
     "2026-11-21T12:00:00.Z", "2026-11-21T12:00:00.1234567890Z", "2026-11-21T12:00:00+00:60",
     "2026-11-21T12:00:00+25:00", "2026-02-30T12:00:00Z", "2026-11-21T24:00:01Z", "2026-11-21T12:00:60Z",
     "0000-01-01T00:00:00Z",
     "٢٠٢٦-11-21T12:00:00Z", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "2026-11-21T12:00:00Z\n"],
)  # fmt: skip
def test_a_malformed_timestamp_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  it has no message for callers
        parse_rfc3339(text)
