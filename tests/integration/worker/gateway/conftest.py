"""Fixtures of the gateway's tests: a provider on a real port, a gateway over a real Redis, and the lines of its log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from shared.live.providers.call_policy import CallPolicy
from shared.live.redis_client import connect
from shared.outbound_hosts import parse_outbound_hosts
from shared.settings import Settings
from tests.provider_stub import ProviderStub
from worker.gateway import retries
from worker.gateway.gateway import Gateway
from worker.gateway.outbound import Outbound
from worker.gateway.step_facts import StepFacts

KEY = "20260101000000_abc:fetch"


@dataclass
class Harness:
    """Makes gateways, each as for one attempt of a step of one process."""

    redis_url: str
    hosts: list[str]
    lines: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    cancel: threading.Event = field(default_factory=threading.Event)
    remaining_s: float = 100.0
    proxy: str = ""
    outbounds: list[Outbound] = field(default_factory=list)

    def outbound(
        self, resolve: Callable[[str, int], list[str]] | None = None, hosts: list[str] | None = None, **limits: Any
    ) -> Outbound:
        settings = Settings(
            redis_url=self.redis_url,
            outbound_hosts=parse_outbound_hosts(self.hosts if hosts is None else hosts),
            outbound_proxy=self.proxy,
        )
        self.outbounds.append(Outbound(settings, resolve, CallPolicy(**limits)))
        return self.outbounds[-1]

    def gateway(self, outbound: Outbound | None = None, **facts: Any) -> Gateway:
        step = {"agent": "fetcher", "integrator": "public", "idempotency_key": KEY, "request_id": "req-1"} | facts
        return Gateway(
            outbound or self.outbound(),
            StepFacts(**step),
            lambda message, **data: self.lines.append((message, data)),
            self.cancel,
            lambda: self.remaining_s,
        )


@pytest.fixture
def stub() -> Iterator[ProviderStub]:
    with ProviderStub() as stub:
        yield stub


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture
def harness(redis_url: str, stub: ProviderStub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    """Yield a harness whose gateways may call the stub; the waits between attempts are a tenth."""
    for name in ("NORMAL", "CRITICAL"):
        policy = getattr(retries, name)
        short = retries.RetrySchedule(policy.attempts, policy.wait_s / 10, policy.wait_max_s / 10)
        monkeypatch.setattr(f"worker.gateway.gateway.{name}", short)
    harness = Harness(redis_url, [stub.url])
    yield harness
    for outbound in harness.outbounds:
        outbound.close()
