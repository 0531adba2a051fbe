"""Calls through the proxy that a setting names; the stub is the proxy here."""

from __future__ import annotations

import pytest

from tests.integration.worker.gateway.conftest import Harness
from tests.provider_stub import ProviderStub
from worker.gateway.gateway_errors import GatewayError


def resolve_nothing(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host}:{port} is resolved by the proxy")


def test_the_proxy_gets_the_call_with_the_name_and_its_own_password(harness: Harness, stub: ProviderStub) -> None:
    harness.proxy = stub.url.replace("//", "//ada:s%40cret@")
    harness.hosts = ["http://rates.example"]
    gateway = harness.gateway(harness.outbound(resolve_nothing))
    assert gateway.get("http://rates.example/json").status_code == 200
    [request] = stub.requests
    assert (request.path, request.headers["host"]) == ("/json", "rates.example")
    assert request.headers["proxy-authorization"] == "Basic YWRhOnNAY3JldA=="


def test_a_host_that_is_not_listed_is_not_called_through_the_proxy_either(harness: Harness, stub: ProviderStub) -> None:
    harness.proxy, harness.hosts = stub.url, ["http://rates.example"]
    with pytest.raises(GatewayError, match="may not be called"):
        harness.gateway(harness.outbound(resolve_nothing)).get("http://other.example/json")
    assert stub.requests == []


def test_an_address_is_called_without_the_proxy(harness: Harness, stub: ProviderStub) -> None:
    harness.proxy = "http://127.0.0.1:1"
    assert harness.gateway().get(f"{stub.url}/json").status_code == 200


def test_a_proxy_that_refuses_is_a_network_failure(harness: Harness, stub: ProviderStub) -> None:
    harness.proxy, harness.hosts = stub.url.replace("//", "//ada:s3cret@"), ["rates.example"]
    with pytest.raises(GatewayError, match=r"network: the proxy did not connect to rates\.example: 501") as caught:
        harness.gateway(harness.outbound(resolve_nothing)).get("https://rates.example/json", retry=False)
    assert "s3cret" not in str(caught.value)
