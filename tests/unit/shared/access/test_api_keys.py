"""API keys as text and as records, and what each role permits."""

from __future__ import annotations

import string
from dataclasses import fields
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.access.api_key import ApiKey, KeyRequest, issue_key, issue_successor
from shared.domain.access.caller import LOCAL_CALLER, ROLE_PERMISSIONS, Caller, Permission, Role
from shared.domain.access.key_format import hash_key, key_id_of, new_key, without_secrets
from tests.builders import NOON

DIGITS = string.digits + string.ascii_letters


def issue(**more: object) -> tuple[str, ApiKey]:
    request = KeyRequest(Role.INTEGRATOR, "acme", "ledger", **more)  # type: ignore[arg-type]
    return issue_key(request, NOON, "key:maker", b"pepper")


def test_a_key_names_its_id_and_no_two_are_alike() -> None:
    texts = [new_key() for _ in range(200)]
    assert all(key_id_of(text) == key_id for text, key_id in texts)
    assert len({text for text, _ in texts} | {key_id for _, key_id in texts}) == 400


@given(st.integers(0, 72), st.sampled_from(DIGITS))
def test_a_key_with_one_other_character_is_no_key(place: int, digit: str) -> None:
    text, _ = new_key()
    place %= len(text)
    changed = text[:place] + digit + text[place + 1 :]
    assert changed == text or key_id_of(changed) is None


@pytest.mark.parametrize("text", ["", "bkt_", "bkt__", "ey.ab.cd", "bkt_" + "a" * 12 + "_" + "b" * 49, " " * 70])
def test_anything_else_is_no_key(text: str) -> None:
    assert key_id_of(text) is None


def test_a_record_holds_a_hash_that_only_key_salt_and_pepper_give() -> None:
    text, key = issue()
    assert key.key_hash == hash_key(text, key.salt, b"pepper")
    assert key.key_hash != hash_key(text, key.salt, b"")
    assert issue()[1].salt != key.salt
    secret = text.rpartition("_")[2].encode()
    assert not any(secret in str(getattr(key, each.name)).encode() for each in fields(ApiKey))


def test_a_key_ends_when_its_life_is_over_or_it_is_revoked() -> None:
    _, key = issue(expires_in=timedelta(hours=1))
    assert key.is_valid_at(NOON)
    assert not key.is_valid_at(NOON + timedelta(hours=1))


def test_a_successor_permits_the_same_for_as_long() -> None:
    _, key = issue(expires_in=timedelta(days=7), baskets=("a", "b"), payloads=True, integration="i1")
    _, successor = issue_successor(key, NOON + timedelta(days=3), "key:other", b"pepper")
    assert successor.caller().may(Permission.SUBMIT)
    assert (successor.baskets, successor.payloads, successor.integration) == (("a", "b"), True, "i1")
    assert successor.expires_at == NOON + timedelta(days=10)
    assert (successor.id, successor.key_hash) != (key.id, key.key_hash)


def test_each_role_permits_what_the_one_below_does() -> None:
    permissions = ROLE_PERMISSIONS
    assert permissions[Role.READER] < permissions[Role.INTEGRATOR] < permissions[Role.OPERATOR]
    assert permissions[Role.INTEGRATOR] < permissions[Role.AUTHOR]
    assert permissions[Role.READER] < permissions[Role.AUDITOR]
    assert permissions[Role.ADMIN] == set(Permission)
    assert not permissions[Role.AUTHOR] & {Permission.OPERATE, Permission.ADMINISTER, Permission.READ_AUDIT}


def test_a_reader_sees_payloads_only_if_its_key_says_so() -> None:
    assert not Caller("key:a", Role.READER, "acme").sees_payloads
    assert Caller("key:a", Role.READER, "acme", payloads=True).sees_payloads
    assert not Caller("key:a", Role.READER, "acme", payloads=True).may(Permission.SUBMIT)


def test_only_an_admin_with_a_key_sees_all_integrators() -> None:
    admin = issue_key(KeyRequest(Role.ADMIN, "acme"), NOON, "x", b"")[1].caller()
    assert admin.scope is None
    assert issue()[1].caller().scope == "acme"
    assert LOCAL_CALLER.scope == "public"


@pytest.mark.parametrize("dropped", [0, 3, 60], ids=["whole", "cut", "cut within its claims"])
def test_a_text_loses_its_tokens_and_the_secrets_of_its_keys(dropped: int) -> None:
    key, key_id = new_key()
    token = ".".join(f"{part}{'Ab-_9' * 9}" for part in ("eyJ", "eyJ", ""))
    token = token[: len(token) - dropped]
    text = f"GET /keys/{token} and '{key}', bkt_, eyJ and eyJhbGci stay"
    assert without_secrets(text) == f"GET /keys/*** and 'bkt_{key_id}_***', bkt_, eyJ and eyJhbGci stay"
