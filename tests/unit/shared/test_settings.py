"""Settings that are more than one word or number."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from shared.errors import SettingsError
from shared.settings import Settings, unknown_variables


def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET_TRUSTED_PROXIES", "10.0.0.7, 10.1.0.0/16,::1")
    assert Settings.from_environ().trusted_proxies == tuple(map(ip_network, ("10.0.0.7", "10.1.0.0/16", "::1")))
    assert Settings().trusted_proxies == ()


@pytest.mark.parametrize("text", ["localhost", "10.0.0.7/8", "10.0.0.7;10.0.0.8", "10.0.0.7,*"])
def test_anything_else_is_refused_with_an_example(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("BUCKET_TRUSTED_PROXIES", text)
    with pytest.raises(SettingsError, match=r"BUCKET_TRUSTED_PROXIES: is no list of .* such as 10\.0\.0\.7,"):
        Settings.from_environ()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("rediss://h?ssl_foo=1", "ssl_foo is no option of a Redis URL"),
        ("rediss://h?ssl_ca_certs=/nowhere/ca.pem", "the file of ssl_ca_certs, /nowhere/ca.pem, does not exist"),
    ],
)
def test_a_redis_url_that_the_client_would_fail_on_is_reported(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match=words):
        Settings.from_environ()


def test_the_variables_of_the_client_are_no_misspelt_settings() -> None:
    environment = {"BUCKET_URL": "http://a", "BUCKET_API_KEY": "k", "BUCKET_URI": "http://a"}
    assert set(unknown_variables(environment)) == {"BUCKET_URI"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.com"])  # noqa: S104
def test_without_authentication_the_api_listens_on_loopback_only(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", host)
    with pytest.raises(SettingsError, match=f"auth_required: HOST={host} .*BUCKET_AUTH=required"):
        Settings.from_environ()
    monkeypatch.setenv("BUCKET_AUTH", "required")
    assert Settings.from_environ().host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_loopback_no_key_is_needed_by_default(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", host)
    assert not Settings.from_environ().requires_key


def test_in_production_keys_are_required_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET_ENV", "production")
    assert Settings.from_environ().requires_key
    monkeypatch.setenv("BUCKET_AUTH", "off")
    assert not Settings.from_environ().requires_key
