"""Only named hosts are called, and only at addresses that are public or named."""

from __future__ import annotations

import os

import pytest

from tests.integration.worker.gateway.conftest import Harness
from tests.provider_stub import ProviderStub
from worker.gateway.gateway_errors import GatewayError

NOT_PUBLIC = [
    "127.0.0.1", "0.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1", "100.64.1.1",
    "64:ff9b::7f00:1", "2002:7f00:1::", "fd00::1", "fe80::1", "224.0.0.1", "::7f00:1",
]  # fmt: skip


def test_without_hosts_nothing_is_called(harness: Harness, stub: ProviderStub) -> None:
    harness.hosts = []
    with pytest.raises(GatewayError, match=r"not_allowed: http://127\.0\.0\.1:\d+ may not be called"):
        harness.gateway().get(f"{stub.url}/json")
    assert stub.requests == []


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_name_that_resolves_to_an_address_that_is_not_public_is_not_called(
    harness: Harness, stub: ProviderStub, address: str
) -> None:
    port = stub.url.rpartition(":")[2]
    outbound = harness.outbound(lambda _host, _port: ["93.184.215.14", address], [f"http://rates.example:{port}"])
    with pytest.raises(GatewayError, match=r"rates\.example resolves to a private address") as caught:
        harness.gateway(outbound).get(f"http://rates.example:{port}/json")
    assert caught.value.kind == "not_allowed"
    assert stub.requests == []


def test_a_private_address_that_is_named_is_called_and_the_name_is_resolved_once(
    harness: Harness, stub: ProviderStub
) -> None:
    port = stub.url.rpartition(":")[2]
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    outbound = harness.outbound(resolve, [f"http://rates.example:{port}", "127.0.0.0/8"])
    response = harness.gateway(outbound).get(f"http://rates.example:{port}/echo")
    assert response.json()["headers"]["host"] == f"rates.example:{port}"
    assert asked == [("rates.example", int(port))]


def test_a_url_among_the_settings_of_an_agent_names_its_origin_for_this_agent(
    harness: Harness, stub: ProviderStub
) -> None:
    outbound = harness.outbound(hosts=[])
    settings = {"RATES_API_URL": f"{stub.url}/v1", "RATES_API_KEY": "abc"}
    assert harness.gateway(outbound, settings=settings).get(f"{stub.url}/json").status_code == 200
    by_name = {"RATES_API_URL": stub.url.replace("127.0.0.1", "localhost")}
    assert harness.gateway(outbound, settings=by_name).get(f"{by_name['RATES_API_URL']}/json").status_code == 200
    with pytest.raises(GatewayError, match="not_allowed"):
        harness.gateway(outbound).get(f"{stub.url}/json")


def test_proxies_of_the_environment_are_ignored(
    harness: Harness, stub: ProviderStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:1")
    assert harness.gateway().get(f"{stub.url}/json").status_code == 200
