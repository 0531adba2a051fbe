"""Body policy: keys that a body may not have, and keys that are ignored."""

from __future__ import annotations

import time
from typing import Any

import pytest

from api.http.body_key_checks import CALLBACK_KEYS, CREDENTIAL_KEYS, check_policy, find_unknown_keys
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


KNOWN = ("basket_name", "config", "input_data", "tags", "run_after", "run_after_s", "deadline_s")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("Input-Data", "input_data"), ("inputData", "input_data"), ("INPUT_DATA", "input_data"),
        ("input_dat", "input_data"), ("inptu_data", "input_data"), ("tag", "tags"), ("deadline", "deadline_s"),
        ("runAfterS", "run_after_s"), ("runAfterSecs", "run_after_s"), ("delay", "run_after_s"),
        ("input", "input_data"), ("Inputs", "input_data"), ("data", "input_data"), ("payload", "input_data"),
        ("basket", "basket_name"), ("name", "basket_name"), ("basketname", "basket_name"),
    ],
)  # fmt: skip
def test_a_near_miss_of_a_known_key_is_no_warning_but_a_fault_with_the_right_key(key: str, meant: str) -> None:
    unknown = find_unknown_keys({"basket_name": 1, key: 2}, KNOWN)
    assert unknown.near_misses == {key: meant}
    assert unknown.faults == {key: [f"is not a known key; did you mean {meant}?"]}
    assert not unknown.warnings


@pytest.mark.parametrize(("key", "known"), [("agent", "agent_name"), ("ids", "items"), ("executions", "items")])
def test_an_alias_counts_only_where_its_key_is_known(key: str, known: str) -> None:
    assert find_unknown_keys({key: 1}, (known,)).near_misses == {key: known}
    assert not find_unknown_keys({key: 1}, KNOWN).near_misses


def test_another_unknown_key_is_a_warning_with_the_nearest_known_one() -> None:
    unknown = find_unknown_keys({"basket_name": 1, "confidence": 2, "zzz": 3}, KNOWN)
    assert not unknown.near_misses
    assert unknown.warnings == [
        "unknown field 'confidence' was ignored; did you mean config?",
        "unknown field 'zzz' was ignored",
    ]


def test_warnings_and_faults_are_few_and_short() -> None:
    warnings = find_unknown_keys({"x" * 1000 + str(at): 1 for at in range(100)}, ("input_data",)).warnings
    assert len(warnings) == 20
    assert max(map(len, warnings)) < 100
    assert len(find_unknown_keys({f"input_data_{at}": 1 for at in range(100)}, ("input_data",)).faults) == 20


def test_a_hundred_thousand_unknown_keys_are_not_compared_one_by_one() -> None:
    """The exact forms of a near miss are found at any place; similar ones only among the first."""
    body = {f"key{at}": 1 for at in range(100_000)} | {"InputData": 1, "payload": 2}
    started_at_s = time.process_time()
    assert find_unknown_keys(body, KNOWN).near_misses == {"InputData": "input_data", "payload": "input_data"}
    assert time.process_time() - started_at_s < 3
