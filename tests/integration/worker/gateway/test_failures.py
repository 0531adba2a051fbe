"""Each way in which a provider fails has its class: visible in the error, in the metrics, and in what is repeated."""

from __future__ import annotations

import gc
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import redis

from shared.live.providers.provider_metrics import ProviderCollector
from shared.telemetry.request_metrics import render_exposition
from tests.integration.worker.gateway.conftest import Harness
from tests.pause_aware_timer import PauseAwareTimer
from tests.provider_stub import ProviderStub
from worker.agent_errors import PermanentError, TransientError
from worker.gateway.gateway import Gateway
from worker.gateway.gateway_errors import GatewayError
from worker.gateway.response import GatewayResponse


def failure_of(harness: Harness, url: str, **options: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        harness.gateway().get(url, **options).json()
    return caught.value


@pytest.mark.parametrize(
    ("path", "kind_and_calls"),
    [
        ("/status/500", ("server_error", 3)),
        ("/status/503", ("server_error", 3)),
        ("/status/429", ("rate_limited", 3)),
        ("/status/400", ("client_error", 1)),
        ("/status/404", ("client_error", 1)),
        ("/status/408", ("client_error", 1)),
        ("/reset", ("network", 3)),
        ("/cut", ("network", 3)),
        ("/garbage", ("network", 3)),
        ("/slow/9", ("timeout", 3)),
        ("/drip", ("timeout", 3)),
        ("/not-json", ("bad_response", 1)),
        ("/huge", ("too_large", 1)),
        ("/bomb", ("too_large", 1)),
    ],
)
def test_each_way_to_fail_has_its_class_and_its_number_of_attempts(
    harness: Harness, stub: ProviderStub, redis_client: redis.Redis, path: str, kind_and_calls: tuple[str, int]
) -> None:
    kind, calls = kind_and_calls
    timeout = 0.5 if kind == "timeout" else 5
    error = failure_of(harness, stub.url + path + "?secret=s3cret", timeout=timeout)

    assert error.kind == kind
    assert str(error).startswith(f"{kind}: ")
    assert isinstance(error, TransientError if calls > 1 else PermanentError)
    assert error.provider == stub.name
    assert "s3cret" not in str(error)
    assert stub.count(path) == calls
    assert [data["reason"] for _, data in harness.lines] == [kind] * (calls - 1)
    metrics = render_exposition(ProviderCollector(redis_client)).decode()
    assert f'bucket_provider_errors_total{{kind="{kind}",provider="{stub.name}"}} {calls}.0' in metrics


def test_a_provider_that_is_gone_is_a_network_failure(harness: Harness, stub: ProviderStub) -> None:
    stub.stop()
    assert failure_of(harness, f"{stub.url}/json").kind == "network"


def test_503_twice_and_then_200_is_a_success_with_two_lines_in_the_log(harness: Harness, stub: ProviderStub) -> None:
    assert harness.gateway().get(f"{stub.url}/sequence/503,503,200").json() == {"call": 3}
    facts = [(data["provider"], data["reason"], data["status"], data["attempt"]) for _, data in harness.lines]
    assert facts == [(stub.name, "server_error", 503, 1), (stub.name, "server_error", 503, 2)]


def test_a_critical_call_has_five_attempts_and_one_without_retry_has_one(harness: Harness, stub: ProviderStub) -> None:
    assert harness.gateway().get(f"{stub.url}/sequence/503,503,503,503,200", critical=True).json() == {"call": 5}
    failure_of(harness, f"{stub.url}/status/503", retry=False)
    assert stub.count("/status/503") == 1


@pytest.mark.parametrize("spell", [lambda: "1", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2))])
def test_retry_after_is_waited_for(harness: Harness, stub: ProviderStub, spell: Any) -> None:
    with PauseAwareTimer() as timer:
        harness.gateway().get(f"{stub.url}/retry-after/{spell()}".replace(" ", "%20"))
    assert timer.seconds >= 0.9


def test_a_long_retry_after_is_left_to_the_step(harness: Harness, stub: ProviderStub) -> None:
    error = failure_of(harness, f"{stub.url}/retry-after/60")
    assert (error.kind, error.retry_after_s, stub.count("/retry-after/60")) == ("rate_limited", 60, 1)


def test_the_timeout_is_for_the_whole_call_and_ends_before_the_step(harness: Harness, stub: ProviderStub) -> None:
    harness.remaining_s = 0.3
    with PauseAwareTimer() as timer:
        assert failure_of(harness, f"{stub.url}/drip", retry=False).kind == "timeout"
    assert 0.25 < timer.seconds < 2


def test_a_cancelled_step_waits_for_no_repeat(harness: Harness, stub: ProviderStub) -> None:
    threading.Timer(0.2, harness.cancel.set).start()
    begun_at = time.monotonic()
    assert failure_of(harness, f"{stub.url}/retry-after/20").kind == "cancelled"
    assert time.monotonic() - begun_at < 2


def test_a_name_that_is_not_resolved_in_time_is_a_timeout(harness: Harness, stub: ProviderStub) -> None:
    is_over = threading.Event()

    def resolve(_host: str, _port: int) -> list[str]:
        is_over.wait(5)
        return ["127.0.0.1"]

    outbound = harness.outbound(resolve, ["https://slow.example", "127.0.0.1"])
    with PauseAwareTimer() as timer, pytest.raises(GatewayError) as caught:
        harness.gateway(outbound).get("https://slow.example/", timeout=0.1, retry=False)
    is_over.set()
    assert caught.value.kind == "timeout"
    assert timer.seconds < 1


def test_no_text_of_an_error_holds_a_secret(harness: Harness, stub: ProviderStub) -> None:
    base = stub.url.replace("://", "://user:s3cret@")
    calls: list[tuple[str, dict[str, Any]]] = [
        (f"{base}/status/500?key=s3cret", {}),
        (f"{base}/reset", {"headers": {"Authorization": "Bearer s3cret"}}),
        (f"{base}/json", {"headers": {"X-Key": "s3cret\n"}}),
        ("https://user:s3cret@elsewhere.example/", {}),
        ("http://user:s3cret/x@host:s3cret/", {}),
    ]
    for url, options in calls:
        error = failure_of(harness, url, retry=False, **options)
        assert "s3cret" not in repr(error), url
    assert "s3cret" not in repr(harness.lines)


@pytest.mark.parametrize("path", ["/json", "/status/400", "/status/503", "/sequence/503,200", "/reset"])
def test_nothing_of_a_call_is_kept_by_a_reference_cycle(harness: Harness, stub: ProviderStub, path: str) -> None:
    outbound = harness.outbound()
    harness.gateway(outbound).get(f"{stub.url}/json")
    gc.collect()
    gc.disable()  # it would free reference cycles, but thousands of runs later
    try:
        with suppress(GatewayError):
            harness.gateway(outbound).get(stub.url + path)
        assert not [each for each in gc.get_objects() if isinstance(each, Gateway | GatewayResponse)]
    finally:
        gc.enable()
