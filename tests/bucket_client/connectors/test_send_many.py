"""Many payloads at a time: results in order, failures isolated, and not more calls at once than asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bucket_client.connectors import (
    CoreSendFailed,
    PayloadNotJson,
    SendOutcome,
    send_many_to_core,
    send_many_to_core_async,
)
from tests.bucket_client.connectors.test_core_replies import CoreHandler, core, logged_in, replies


def send_many_async(*args: Any, **options: Any) -> list[SendOutcome]:
    return asyncio.run(send_many_to_core_async(*args, **options))


@pytest.fixture(params=[send_many_to_core, send_many_async], ids=["sync", "async"])
def send_many(request: pytest.FixtureRequest) -> Callable[..., list[SendOutcome]]:
    form: Callable[..., list[SendOutcome]] = request.param
    return form


def echoes(handler: CoreHandler) -> None:
    """Reply with the number of the payload; refuse each third one."""
    key = handler.headers["Idempotency-Key"]
    payload = next(call.payload for call in handler.server.calls if call.headers["Idempotency-Key"] == key)
    number = payload["number"]
    replies(400 if number % 3 == 0 else 200, b"%d" % number)(handler)


class Gate:
    """Holds each call until ``size`` of them are there and more had time to come; counts how many there are at once."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size)
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __call__(self, handler: CoreHandler) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        self._barrier.wait(timeout=10)
        handler.server.closing.wait(0.1)
        with self._lock:
            self._inside -= 1
        replies()(handler)


def test_each_failure_is_isolated_and_outcomes_are_in_order(
    send_many: Callable[..., list[SendOutcome]], tmp_path: Path
) -> None:
    payloads: list[Any] = [{"number": number} for number in range(20)]
    payloads[7] = float("nan")
    with core(tmp_path, echoes) as (_, settings):
        outcomes = send_many(iter(payloads), 4, settings=settings)
    refused = [number for number in range(20) if number % 3 == 0]
    for number, outcome in enumerate(outcomes):
        if number == 7:
            assert isinstance(outcome.error, PayloadNotJson)
        elif number in refused:
            assert isinstance(outcome.error, CoreSendFailed)
        else:
            assert (outcome.reply, outcome.sent) == (number, True)
    assert sorted(payload["number"] for payload in logged_in(settings)) == refused


def test_so_many_calls_as_asked_for_are_made_at_once(
    send_many: Callable[..., list[SendOutcome]], tmp_path: Path
) -> None:
    gate = Gate(3)
    with core(tmp_path, gate) as (_, settings):
        outcomes = send_many([{}] * 9, concurrency=3, max_retries=1, settings=settings)
    assert [outcome.sent for outcome in outcomes] == [True] * 9
    assert gate.most == 3


def test_no_payloads_have_no_outcomes(send_many: Callable[..., list[SendOutcome]]) -> None:
    assert send_many([]) == []


def test_a_concurrency_of_nothing_is_refused(send_many: Callable[..., list[SendOutcome]]) -> None:
    with pytest.raises(ValueError, match="concurrency"):
        send_many([{}], 0)
