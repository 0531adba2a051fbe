"""The header Retry-After: seconds, or a date; anything else is ignored."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from worker.gateway.retry_after import parse_retry_after

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("\N{ARABIC-INDIC DIGIT TWO}", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Fri, 01 May 2026 12:00:30 GMT", 30.0),
        ("Fri, 01 May 2026 12:00:30 -0000", 30.0),
        ("Fri, 01 May 2026 14:00:30 +0200", 30.0),
        ("Fri, 01 May 2026 11:00:00 GMT", 0.0),
        ("Fri, 99 May 2026 11:00:00 GMT", None),
        ("Fri, 01 May 2026 11:00:00 +9999999999999", None),
        ("9" * 400, 315_360_000.0),
    ],
)
def test_it_is_read_as_seconds_from_now(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW) == seconds
