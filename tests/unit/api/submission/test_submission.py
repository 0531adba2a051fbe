"""The fingerprint of a submit distinguishes what has to be distinguished."""

from __future__ import annotations

from api.submission.submission import fingerprint


def test_a_fingerprint_distinguishes_routes_and_bodies_but_not_two_spellings_of_one_body() -> None:
    assert fingerprint("/run-basket", {"a": 1, "b": 2}) == fingerprint("/run-basket", {"b": 2, "a": 1.0})
    assert fingerprint("/run-basket", {"a": 1}) != fingerprint("/run-agent", {"a": 1})
    assert fingerprint("/run-basket", {"a": 1}) != fingerprint("/run-basket", {"a": 2})
