"""The breaker in Redis and the one in memory follow the same rules; and what only the shared one must do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from compose.embedded.managed_process import Child
from shared.live.providers.call_policy import CallPolicy, CallReport, Outcome
from shared.live.providers.circuit_breaker import SharedBreaker
from shared.live.providers.provider_states import ProviderState, decode_states, read_states
from tests.integration.worker.gateway.conftest import Harness
from tests.provider_stub import ProviderStub
from tests.waiting import wait_until
from worker.gateway.gateway_errors import GatewayError
from worker.gateway.local_breaker import LocalBreaker

NAME = "rates.example"
Breaker = SharedBreaker | LocalBreaker
MakeBreaker = Callable[..., Breaker]


@pytest.fixture(params=["shared", "local"])
def make_breaker(request: pytest.FixtureRequest, redis_client: redis.Redis) -> MakeBreaker:
    def make(**limits: Any) -> Breaker:
        policy = CallPolicy(**{"window_s": 1_000.0, "cooldown_s": 0.2, "cooldown_max_s": 0.5} | limits)
        return SharedBreaker(redis_client, policy) if request.param == "shared" else LocalBreaker(policy)

    return make


def call(breaker: Breaker, *outcomes: Outcome, **facts: Any) -> list[str]:
    """Make a call for each outcome; return what became of it: a refusal, a change of the circuit, or nothing."""
    found = []
    for outcome in outcomes:
        permit = breaker.admit(NAME, lease_s=5)
        if permit.refusal:
            found.append(permit.refusal)
        else:
            found.append(breaker.record(CallReport(NAME, outcome, probe=permit.probe, **facts)).change)
    return found


def test_five_failures_in_a_row_open_the_circuit_and_a_success_between_does_not_count(
    make_breaker: MakeBreaker,
) -> None:
    breaker = make_breaker(calls_min=100)
    assert call(breaker, *["error"] * 4, "ok", *["error"] * 4) == [""] * 9
    assert call(breaker, "error", "error") == ["opened", "circuit_open"]


@pytest.mark.parametrize(("bad", "share"), [("error", 5), ("timeout", 3)])
def test_a_share_of_failures_opens_the_circuit_once_there_are_enough_calls(
    make_breaker: MakeBreaker, bad: Outcome, share: int
) -> None:
    breaker = make_breaker(failures_max=100, calls_min=10)
    calls: list[Outcome] = ["ok"] * (10 - share) + [bad] * (share - 1)
    assert call(breaker, *calls) == [""] * 9
    assert call(breaker, bad) == ["opened"]


def next_probe(breaker: Breaker) -> str:
    """Wait for the end of the cool-down, and return the token of the probe."""
    probes: list[str] = []

    def is_admitted() -> bool:
        permit = breaker.admit(NAME, lease_s=5)
        probes.append(permit.probe)
        return not permit.refusal

    wait_until(is_admitted, 2, "a probe is let through")
    return probes[-1]


def test_after_the_cool_down_one_probe_decides_and_a_failed_one_makes_it_longer(make_breaker: MakeBreaker) -> None:
    breaker = make_breaker()
    assert call(breaker, *["error"] * 5)[-1] == "opened"
    assert 0.1 < breaker.admit(NAME, lease_s=5).wait_s <= 0.2
    probe = next_probe(breaker)
    assert probe
    assert breaker.admit(NAME, lease_s=5).refusal == "circuit_open", "another call while the probe is under way"
    assert breaker.record(CallReport(NAME, "ok")).change == "", "a call from before the circuit opened"
    assert breaker.record(CallReport(NAME, "error", probe=probe)).change == "opened"
    assert 0.3 < breaker.admit(NAME, lease_s=5).wait_s <= 0.4, "twice as long"
    probe = next_probe(breaker)
    assert breaker.record(CallReport(NAME, "abandoned", probe=probe)).change == ""
    probe = breaker.admit(NAME, lease_s=5).probe
    assert probe, "a probe that was stopped leaves its place to another"
    assert breaker.record(CallReport(NAME, "ok", probe=probe)).change == "closed"
    assert call(breaker, *["error"] * 4, "ok") == [""] * 5, "nothing is left of the failures from before"


def test_a_probe_whose_worker_died_holds_its_place_for_its_lease(make_breaker: MakeBreaker) -> None:
    breaker = make_breaker(cooldown_s=0.05)
    call(breaker, *["error"] * 5)
    wait_until(lambda: breaker.admit(NAME, lease_s=0.3).probe, 2, "a probe is let through, and never reported")
    assert breaker.admit(NAME, lease_s=5).refusal == "circuit_open"
    assert next_probe(breaker)


def test_repeats_are_a_fifth_of_the_calls_and_critical_calls_have_a_budget_of_their_own(
    make_breaker: MakeBreaker,
) -> None:
    breaker = make_breaker(failures_max=1_000, calls_min=1_000, retries_min=2)

    def repeats(outcomes: int, *, is_critical: bool) -> int:
        reports = [CallReport(NAME, "error", is_critical, wants_retry=True)] * outcomes
        return sum(breaker.record(report).may_retry for report in reports)

    assert repeats(3, is_critical=False) == 2, "the floor"
    assert repeats(17, is_critical=False) == 2, "a fifth of twenty"
    assert repeats(3, is_critical=True) == 2, "the other budget"
    assert not breaker.record(CallReport(NAME, "error")).may_retry, "who asks for none gets none"


def test_calls_beyond_the_rate_wait_for_their_slot_or_are_refused(make_breaker: MakeBreaker) -> None:
    breaker = make_breaker(rate=10.0, slot_wait_max_s=0.35)
    permits = [breaker.admit(NAME, lease_s=5) for _ in range(16)]
    assert [permit.wait_s for permit in permits[:10]] == [0.0] * 10, "the burst of one second"
    waits = [permit.wait_s for permit in permits[10:13]]
    assert waits == sorted(waits)
    assert 0.2 < waits[-1] <= 0.3
    assert {permit.refusal for permit in permits[13:]} <= {"", "rate_limit_local"}
    assert permits[-1].refusal == "rate_limit_local"


def test_many_workers_let_one_probe_through(redis_client: redis.Redis) -> None:
    breakers = [SharedBreaker(redis_client, CallPolicy(cooldown_s=0.1)) for _ in range(8)]
    call(breakers[0], *["error"] * 5)
    assert {breaker.admit(NAME, lease_s=5).refusal for breaker in breakers} == {"circuit_open"}
    time.sleep(0.15)
    start = threading.Barrier(8)

    def admit(breaker: SharedBreaker) -> str:
        start.wait()
        return breaker.admit(NAME, lease_s=5).probe

    with ThreadPoolExecutor(8) as pool:
        assert len([probe for probe in pool.map(admit, breakers) if probe]) == 1


def test_a_clock_that_goes_back_holds_up_no_call(redis_client: redis.Redis) -> None:
    breaker = SharedBreaker(redis_client, CallPolicy(cooldown_s=0.1, rate=5.0))
    call(breaker, *["error"] * 5)
    in_an_hour_ms = (redis_client.time()[0] + 3_600) * 1_000
    redis_client.hset(f"provider:{NAME}", mapping={"open_until": in_an_hour_ms, "slot": in_an_hour_ms})

    assert breaker.open_for_s(NAME) == 0.0
    probe = breaker.admit(NAME, lease_s=5)
    assert (probe.refusal, probe.wait_s, bool(probe.probe)) == ("", 0.0, True)
    assert breaker.admit(NAME, lease_s=5).refusal == "circuit_open", "one probe"
    assert breaker.record(CallReport(NAME, "ok", probe=probe.probe)).change == "closed"


def test_the_state_is_shown_with_whether_the_provider_is_critical(redis_client: redis.Redis) -> None:
    def states() -> tuple[ProviderState, ...]:
        pipe = redis_client.pipeline(transaction=False)
        read_states(pipe)
        return decode_states(*pipe.execute())

    breaker = SharedBreaker(redis_client, CallPolicy(cooldown_s=0.1))
    call(breaker, "ok")
    assert states() == (ProviderState(NAME, "closed", is_critical=False),)
    breaker.admit(NAME, lease_s=5, is_critical=True)
    call(breaker, *["error"] * 5)
    assert states() == (ProviderState(NAME, "open", is_critical=True),)
    time.sleep(0.15)
    assert states() == (ProviderState(NAME, "half-open", is_critical=True),)
    breaker.record(CallReport(NAME, "ok", probe=next_probe(breaker)))
    assert states() == (ProviderState(NAME, "closed", is_critical=True),)
    redis_client.hset("metrics:circuits", "strange", "x")
    assert len(states()) == 1


def test_with_the_provider_gone_calls_fail_at_once_and_recover_alone(harness: Harness, stub: ProviderStub) -> None:
    outbound = harness.outbound(cooldown_s=0.3)
    stub.stop()
    kinds = []
    for _ in range(3):
        with pytest.raises(GatewayError) as caught:
            harness.gateway(outbound).get(f"{stub.url}/json")
        kinds.append(caught.value.kind)
    assert kinds == ["network", "network", "circuit_open"]
    begun_at = time.monotonic()
    with pytest.raises(GatewayError, match="failed too often and is not called"):
        harness.gateway(harness.outbound()).get(f"{stub.url}/json")
    assert time.monotonic() - begun_at < 0.1, "not even the HTTP library is loaded"
    assert not harness.outbounds[-1].is_loaded
    stub.start()

    def recovers() -> bool:
        try:
            return bool(harness.gateway(outbound).get(f"{stub.url}/json").is_success)
        except GatewayError:
            return False

    wait_until(recovers, 3)
    assert stub.count("/json") == 1


def test_with_redis_away_each_process_has_a_breaker_of_its_own_and_waits_once(
    own_redis: tuple[Child, str], harness: Harness, stub: ProviderStub
) -> None:
    child, harness.redis_url = own_redis
    outbound = harness.outbound()
    http = harness.gateway(outbound)
    http.get(f"{stub.url}/json")
    child.pause()
    try:
        begun_at = time.monotonic()
        for _ in range(10):
            http.get(f"{stub.url}/json")
        assert 0.2 < time.monotonic() - begun_at < 1
        kinds = []
        for _ in range(6):
            with pytest.raises(GatewayError) as caught:
                http.get(f"{stub.url}/status/500", retry=False)
            kinds.append(caught.value.kind)
        assert kinds == ["server_error"] * 5 + ["circuit_open"]
    finally:
        child.resume()


def test_calls_that_their_own_limits_stop_say_nothing_about_the_provider(harness: Harness, stub: ProviderStub) -> None:
    outbound = harness.outbound(rate=1.0)
    http = harness.gateway(outbound)
    http.get(f"{stub.url}/json")
    for _ in range(6):
        begun_at = time.monotonic()
        with pytest.raises(GatewayError) as caught:
            http.get(f"{stub.url}/json", timeout=0.05, retry=False)
        assert caught.value.kind == "rate_limit_local"
        assert time.monotonic() - begun_at < 0.5, "no wait for a slot that comes too late"
    harness.remaining_s = -1.0
    for _ in range(6):
        with pytest.raises(GatewayError):
            harness.gateway(harness.outbound()).get(f"{stub.url}/json", retry=False)

    harness.remaining_s = 100.0
    assert harness.gateway(harness.outbound()).get(f"{stub.url}/json").is_success
