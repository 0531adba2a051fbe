"""A header that was checked needs no second check, for as long as its key is the one that was checked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from api.auth.key_cache import KeyCache
from api.auth.verified_headers import VerifiedHeaders
from shared.domain.access.api_key import ApiKey, KeyRequest, issue_key
from shared.domain.access.caller import Role

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def verified_key(remembered_max: int = 10) -> tuple[KeyCache, VerifiedHeaders, str, ApiKey]:
    text, key = issue_key(KeyRequest(Role.READER, "acme", expires_in=timedelta(days=1)), NOW, "test", b"")
    keys = KeyCache(None)  # type: ignore[arg-type]  # it asks no store
    keys.put(key)
    headers = VerifiedHeaders(keys, remembered_max)
    assert headers.find(f"Bearer {text}", NOW) is None
    headers.add(f"Bearer {text}", key)
    return keys, headers, f"Bearer {text}", key


def test_only_the_same_header_is_known() -> None:
    _, headers, header, key = verified_key()
    found = headers.find(header, NOW)
    assert found is not None
    assert (found.key, found.caller) == (key, key.caller())
    assert headers.find(header[:-1], NOW) is None
    assert headers.find(f"{header}\udcff", NOW) is None


def test_a_revoked_or_expired_key_is_checked_again() -> None:
    keys, headers, header, key = verified_key()
    assert headers.find(header, key.expires_at) is None
    assert headers.find(header, NOW) is not None
    keys.put(replace(key, revoked_at=NOW))
    assert headers.find(header, NOW) is None


def test_no_more_than_the_most_are_remembered() -> None:
    _, headers, header, key = verified_key(remembered_max=1)
    headers.add("Bearer another", key)
    assert headers.find(header, NOW) is None
