"""A header that was checked needs no second check, for as long as its key is the one that was checked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from api.auth.key_cache import KeyCache
from api.auth.verified_headers import CHECKED_EVERY_S, VerifiedHeaders
from shared.domain.access.api_key import ApiKey, KeyRequest, issue_key
from shared.domain.access.caller import Role

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_S = 1_000.0


def verified_key(
    remembered_max: int = 10, expires_in: timedelta = timedelta(days=1)
) -> tuple[KeyCache, VerifiedHeaders, str, ApiKey]:
    text, key = issue_key(KeyRequest(Role.READER, "acme", expires_in=expires_in), NOW, "test", b"")
    keys = KeyCache(None)  # type: ignore[arg-type]  # it asks no store
    keys.put(key)
    headers = VerifiedHeaders(keys, remembered_max)
    assert headers.find(f"Bearer {text}", NOW_S) is None
    headers.add(f"Bearer {text}", key, NOW, NOW_S)
    return keys, headers, f"Bearer {text}", key


def test_only_the_same_header_is_known() -> None:
    _, headers, header, key = verified_key()
    found = headers.find(header, NOW_S)
    assert found is not None
    assert (found.key, found.caller) == (key, key.caller())
    assert headers.find(header[:-1], NOW_S) is None
    assert headers.find(f"{header}\udcff", NOW_S) is None


def test_a_revoked_key_is_checked_again() -> None:
    keys, headers, header, key = verified_key()
    assert headers.find(header, NOW_S) is not None
    keys.put(replace(key, revoked_at=NOW))
    assert headers.find(header, NOW_S) is None


@pytest.mark.parametrize(("expires_in_s", "known_for_s"), [(3.0, 3.0), (86_400.0, CHECKED_EVERY_S)])
def test_a_key_is_checked_again_at_its_end_and_now_and_then(expires_in_s: float, known_for_s: float) -> None:
    _, headers, header, _ = verified_key(expires_in=timedelta(seconds=expires_in_s))
    assert headers.find(header, NOW_S + known_for_s - 0.001) is not None
    assert headers.find(header, NOW_S + known_for_s) is None


def test_no_more_than_the_most_are_remembered() -> None:
    _, headers, header, key = verified_key(remembered_max=1)
    headers.add(header, key, NOW, NOW_S)
    assert headers.find(header, NOW_S) is not None, "it has a place already"
    headers.add("Bearer another", key, NOW, NOW_S)
    assert headers.find(header, NOW_S) is None
