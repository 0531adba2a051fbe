"""Body policy: keys that a body may not have, and keys that are ignored."""

from __future__ import annotations

from typing import Any

import pytest

from api.http.body_key_checks import CALLBACK_KEYS, CREDENTIAL_KEYS, check_policy, unknown_key_warnings
from api.http.strict_json import parse
from shared.errors import CallbacksNotSupported, CredentialsNotAccepted

WRITTEN = ["password", "passwd", "secret", "api_key", "access_token", "refresh_token"]
WRITTEN += ["private_key", "client_secret", "authorization"]


@pytest.mark.parametrize("key", ["callback", "callback_url", "webhook", "webhook_url", "notify_url"])
def test_a_callback_is_refused_at_the_top_and_in_config(key: str) -> None:
    for body, pointer in (({key: "http://x"}, f"/{key}"), ({"config": {key: None}}, f"/config/{key}")):
        with pytest.raises(CallbacksNotSupported, match="poll status_url") as refused:
            check_policy(body)
        assert [detail["pointer"] for detail in refused.value.details] == [pointer]
    check_policy({"input_data": {key: 1}})


@pytest.mark.parametrize("key", [*WRITTEN, "API-Key", "ApiKey", "PASSWORD", "Client-Secret", "_secret_"])
def test_a_credential_is_refused_at_any_depth_and_its_value_is_never_shown(key: str) -> None:
    body: dict[str, Any] = {"input_data": {"rows": [{"ok": 1}, {"deep/er": {key: "hunter2"}}]}}
    with pytest.raises(CredentialsNotAccepted) as refused:
        check_policy(body)
    assert [detail["pointer"] for detail in refused.value.details] == [f"/input_data/rows/1/deep~1er/{key}"]
    assert "hunter2" not in repr((refused.value.message, refused.value.details))


@pytest.mark.parametrize("key", WRITTEN)
def test_a_credential_is_found_however_its_letters_are_written(key: str) -> None:
    spelt = [key, key.upper(), f"_{'-'.join(key)}_", "".join(f"\\u{ord(letter):04x}" for letter in key)]
    if "k" in key:
        spelt.append(key.replace("k", "\u212a"))  # a Kelvin sign, whose lower-case letter is k
    for written in spelt:
        with pytest.raises(CredentialsNotAccepted):
            check_raw(f'{{"a":[{{"{written}":1}}]}}'.encode())
    check_raw(f'{{"a":"{key}"}}'.encode())


def check_raw(raw: bytes) -> None:
    check_policy(parse(raw), raw)


@pytest.mark.parametrize("key", ["tokens_used", "secrets", "password_hint", "my_secret", "token", "key", "auth"])
def test_only_whole_keys_are_credentials(key: str) -> None:
    check_policy({"input_data": {key: "password"}})


def test_at_most_twenty_credentials_are_named() -> None:
    with pytest.raises(CredentialsNotAccepted, match="and 17 more") as refused:
        check_policy({"input_data": [{"password": at} for at in range(1000)]})
    assert len(refused.value.details) == 20


def test_the_closed_lists_match_the_contract() -> None:
    assert len(CALLBACK_KEYS) == 5
    assert {key.replace("_", "") for key in WRITTEN} == CREDENTIAL_KEYS


def test_an_unknown_field_is_named_with_the_nearest_known_one() -> None:
    known_fields = ("basket_name", "config", "input_data")
    assert unknown_key_warnings({"basket_name": 1, "input_dat": 2, "zzz": 3}, known_fields) == [
        "unknown field 'input_dat' was ignored; did you mean input_data?",
        "unknown field 'zzz' was ignored",
    ]


def test_warnings_are_few_and_short() -> None:
    warnings = unknown_key_warnings({"x" * 1000 + str(at): 1 for at in range(100)}, ("input_data",))
    assert len(warnings) == 20
    assert max(map(len, warnings)) < 100
