"""The short form of the fuzz of ``Authorization``: no made-up header is accepted, and none is repeated."""

from __future__ import annotations

from tests.trust.header_run import run_headers

SEED = 11


def test_no_made_up_header_is_accepted(redis_url: str, mongodb_url: str) -> None:
    findings = run_headers(redis_url, mongodb_url, headers=5_000, seed=SEED)
    assert not findings.faults, "\n".join(findings.report())
    assert findings.headers == 5_000
