"""The decisions about one payload, without any input or output: the test is the driver of the flow."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bucket_client.connectors import ConnectorSettings, CoreSendFailed, PayloadNotJson
from bucket_client.connectors.connector_flows import (
    ConnectorEffect,
    CoreCall,
    CoreReply,
    NoCoreReply,
    Pause,
    Work,
    drive,
)
from bucket_client.connectors.core_delivery import CoreRetries, send

SETTINGS = ConnectorSettings(core_token="t0ken-of-core", failed_log=Path("never-written.log"))


def reply(status: int, body: bytes = b"{}", **more: Any) -> CoreReply:
    values = {"is_cut": False, "location": "", "retry_after": "", "duration_s": 0.01}
    return CoreReply(status, body, **{**values, **more})


class Script:
    """Performs effects: gives each call the next outcome, and records all effects."""

    def __init__(self, outcomes: Sequence[CoreReply | NoCoreReply]) -> None:
        self._outcomes = list(outcomes)
        self.calls: list[CoreCall] = []
        self.pauses: list[float] = []
        self.appended = 0

    def perform(self, effect: ConnectorEffect) -> Any:
        if isinstance(effect, CoreCall):
            self.calls.append(effect)
            return self._outcomes[min(len(self.calls), len(self._outcomes)) - 1]
        if isinstance(effect, Pause):
            self.pauses.append(effect.seconds)
        if isinstance(effect, Work):
            self.appended += 1
        return None


def sent(*outcomes: CoreReply | NoCoreReply, retries: CoreRetries | None = None) -> tuple[Script, Any]:
    """Send a payload against scripted outcomes; return the script, and the reply or the error."""
    script = Script(outcomes)
    try:
        return script, drive(send({"a": 1}, retries or CoreRetries(), SETTINGS), script.perform)
    except CoreSendFailed as error:
        return script, error


def test_the_pause_doubles_after_each_failed_call() -> None:
    script, error = sent(NoCoreReply("refused", 0.0), retries=CoreRetries(5, 1))
    assert script.pauses == [1, 2, 4, 8]
    assert error.calls == len(script.calls) == 5
    assert script.appended == 1


def test_a_pause_never_grows_without_end() -> None:
    assert CoreRetries(3, 1).pause_after(5_000, 0) == 60
    assert CoreRetries(3, 90).pause_after(2, 0) == 90


def test_all_calls_of_a_payload_have_one_idempotency_key_and_two_payloads_have_two() -> None:
    first, _ = sent(reply(500), reply(500), reply(200))
    second, _ = sent(reply(200))
    keys = [call.headers["Idempotency-Key"] for call in first.calls]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert second.calls[0].headers["Idempotency-Key"] != keys[0]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_repeated(status: int) -> None:
    script, result = sent(reply(status), reply(200, b'{"taken": true}'))
    assert result == {"taken": True}
    assert len(script.calls) == 2
    assert not script.appended


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 409, 413, 422])
def test_a_status_that_is_final_is_not_repeated_and_is_logged(status: int) -> None:
    script, error = sent(reply(status, b'{"why": "so"}'))
    assert (len(script.calls), script.appended, error.calls, error.status) == (1, 1, 1, status)
    assert "1 call" in str(error)


@pytest.mark.parametrize(
    ("status", "retry_after", "pause_s"),
    [
        (429, "7", 7),
        (503, "7", 7),
        (503, "2.5", 2.5),
        (503, "0", 1),  # the back-off is longer
        (503, "3600", 30),
        (503, "9" * 400, 30),
        (503, "-5", 1),
        (503, "nan", 1),
        (503, "Wed, 21 Oct 2026 07:28:00 GMT", 1),
        (500, "7", 1),
    ],
)
def test_retry_after_makes_a_pause_longer_within_bounds(status: int, retry_after: str, pause_s: float) -> None:
    script, _ = sent(reply(status, retry_after=retry_after), reply(200))
    assert script.pauses == [pause_s]


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_an_empty_reply_is_none(body: bytes) -> None:
    assert sent(reply(204, body))[1] is None


@pytest.mark.parametrize(
    "flawed",
    [reply(200, b"<html>hello"), reply(200, b'{"a": NaN}'), reply(200, b"\xff\xfe\xfd"), reply(200, b"[" * 9999)],
)
def test_a_success_that_is_not_json_is_not_repeated_and_is_logged(flawed: CoreReply) -> None:
    script, error = sent(flawed)
    assert (len(script.calls), script.appended) == (1, 1)
    assert "not JSON" in str(error)


def test_a_success_that_is_too_long_is_not_repeated() -> None:
    script, error = sent(reply(200, b"[]", is_cut=True))
    assert len(script.calls) == 1
    assert "longer than 1 MiB" in str(error)


@pytest.mark.parametrize(
    "echo",
    [
        reply(400, b"you sent Bearer t0ken-of-core"),
        reply(400, b"x" * 193 + b"t0ken-of-core"),  # the excerpt would end inside the token
        reply(200, b"you sent Bearer t0ken-of-core"),
        reply(302, location="http://elsewhere/?key=t0ken-of-core"),
        NoCoreReply("LocalProtocolError: Bearer t0ken-of-core", 0.0),
    ],
)
def test_the_token_is_not_in_an_error_even_if_core_repeats_it(echo: CoreReply | NoCoreReply) -> None:
    _, error = sent(echo, retries=CoreRetries(1))
    assert "t0ken" not in str(error)


def test_control_characters_of_a_reply_do_not_reach_an_error() -> None:
    _, error = sent(reply(400, b"line\r\nERROR forged \x1b[31m"))
    assert str(error).isprintable()


@pytest.mark.parametrize(
    "payload", [float("nan"), {"a": float("inf")}, {"a": object()}, {1, 2}, {("a",): 1}, b"bytes", [10**5000]]
)
def test_a_payload_that_is_not_json_is_refused_before_any_effect(payload: Any) -> None:
    script = Script([reply(200)])
    with pytest.raises(PayloadNotJson):
        drive(send(payload, CoreRetries(), SETTINGS), script.perform)
    assert not script.calls
    assert not script.appended


def test_a_payload_that_contains_itself_is_refused() -> None:
    payload: list[Any] = []
    payload.append(payload)
    with pytest.raises(PayloadNotJson):
        drive(send(payload, CoreRetries(), SETTINGS), Script([reply(200)]).perform)


@pytest.mark.parametrize("key", ["", "a b", "a\r\nX: y", "é", "k" * 256])
def test_a_key_that_is_no_header_is_refused_before_any_effect(key: str) -> None:
    script = Script([reply(200)])
    with pytest.raises(ValueError, match="idempotency_key"):
        drive(send({}, CoreRetries(), SETTINGS, key), script.perform)
    assert not script.calls


@pytest.mark.parametrize(("calls", "backoff"), [(0, 1), (-1, 1), (3, -1), (3, float("nan")), (3, float("inf"))])
def test_retries_that_make_no_sense_are_refused(calls: int, backoff: float) -> None:
    with pytest.raises(ValueError, match=r"must be|number of calls"):
        CoreRetries(calls, backoff)


def test_a_log_that_cannot_be_written_is_said_in_the_error() -> None:
    script = Script([reply(400)])

    def perform(effect: ConnectorEffect) -> Any:
        if isinstance(effect, Work):
            raise OSError("disk full")
        return script.perform(effect)

    with pytest.raises(CoreSendFailed, match="NOT in the failure log: disk full") as caught:
        drive(send({}, CoreRetries(), SETTINGS), perform)
    assert caught.value.logged_to is None


def test_the_error_survives_pickling() -> None:
    _, error = sent(reply(400))
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 -- its own bytes
    assert str(copied) == str(error)
    assert (copied.calls, copied.status, copied.logged_to) == (1, 400, SETTINGS.failed_log)
