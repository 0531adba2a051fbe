"""Settings that are more than one word or number."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from shared.errors import SettingsError
from shared.settings import Settings, unknown_variables, warn_about_unused_settings


def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET_TRUSTED_PROXIES", "10.0.0.7, 10.1.0.0/16,::1,::ffff:10.2.0.0/112")
    networks = ("10.0.0.7", "10.1.0.0/16", "::1", "10.2.0.0/16")
    assert Settings.from_environ().trusted_proxies == tuple(map(ip_network, networks))
    assert Settings().trusted_proxies == ()


@pytest.mark.parametrize("text", ["localhost", "10.0.0.7/8", "fe80::1%eth0", "10.0.0.7;10.0.0.8", "10.0.0.7,*"])
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


@pytest.mark.parametrize("variable", ["BUCKET_LIMITS", "BUCKET_QUOTAS"])
@pytest.mark.parametrize("text", ["[]", "null", "5", "/nowhere/limits.json", "[" * 5_000])
def test_what_is_neither_an_object_nor_a_file_is_refused_as_that(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ()
    assert f"{variable}: must be a JSON object, or the path of a file with one; " in str(caught.value)
    assert len(str(caught.value)) < 400


def test_limits_that_nothing_obeys_are_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warn_about_unused_settings(Settings.from_environ())
    monkeypatch.setenv("BUCKET_LIMITS", '{"poll": null}')
    monkeypatch.setenv("BUCKET_AUTH", "required")
    warn_about_unused_settings(Settings.from_environ())
    assert not caplog.messages
    monkeypatch.setenv("BUCKET_AUTH", "off")
    warn_about_unused_settings(Settings.from_environ())
    assert [text for text in caplog.messages if "BUCKET_LIMITS has no effect" in text]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_loopback_no_key_is_needed_by_default(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", host)
    assert not Settings.from_environ().requires_key


def test_in_production_keys_are_required_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET_ENV", "production")
    assert Settings.from_environ().requires_key
    monkeypatch.setenv("BUCKET_AUTH", "off")
    assert not Settings.from_environ().requires_key


TOKENS = {
    "BUCKET_JWT_ISSUER": "https://login.example.com",
    "BUCKET_JWT_AUDIENCE": "bucket",
    "BUCKET_JWT_JWKS": "https://login.example.com/jwks",
}


def test_the_settings_of_tokens_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TOKENS.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environ()
    assert settings.jwt_algorithms == ("RS256", "ES256", "EdDSA")
    monkeypatch.delenv("BUCKET_JWT_AUDIENCE")
    monkeypatch.setenv("BUCKET_JWT_ISSUER", "")
    with pytest.raises(SettingsError, match=r"belong together; missing: BUCKET_JWT_ISSUER, BUCKET_JWT_AUDIENCE$"):
        Settings.from_environ()


def test_settings_of_tokens_that_nothing_reads_are_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in TOKENS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BUCKET_AUTH", "required")
    warn_about_unused_settings(Settings.from_environ())
    assert not caplog.messages
    monkeypatch.setenv("BUCKET_AUTH", "off")
    warn_about_unused_settings(Settings.from_environ())
    [message] = caplog.messages
    assert f"no effect while BUCKET_AUTH=off, which reads no token: {', '.join(TOKENS)};" in message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "BUCKET_JWT_ALGORITHMS",
            "RS256,HS256,none",
            "'HS256', 'none' is no asymmetric algorithm .* choose from RS256,",
        ),
        ("BUCKET_JWT_ALGORITHMS", "rs256", "'rs256' is no asymmetric algorithm"),
        ("BUCKET_JWT_ALGORITHMS", "", "no asymmetric algorithm"),
        ("BUCKET_JWT_JWKS", "http://login.example.com/jwks", "must be an https address"),
        ("BUCKET_JWT_JWKS", "ftp://login.example.com/jwks", "neither a file nor an https address"),
        ("BUCKET_JWT_JWKS", "https://ada:secret@login.example.com/jwks", "must have no user and no password"),
        ("BUCKET_JWT_JWKS", "https:///jwks", "neither a file nor an https address"),
        ("BUCKET_JWT_JWKS", "https://login.example.com:port/jwks", "is no address"),
        ("BUCKET_JWT_ROLE_CLAIM", "", "must not be empty"),
    ],
)
def test_a_wrong_setting_of_tokens_is_named(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other, good in {**TOKENS, name: value}.items():
        monkeypatch.setenv(other, good)
    with pytest.raises(SettingsError, match=f"{name}: .*{words}") as caught:
        Settings.from_environ()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:9/jwks", "http://[::1]/jwks", "http://localhost/jwks", "/a/file"]
)
def test_keys_may_come_from_a_file_or_over_plain_http_from_this_machine(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**TOKENS, "BUCKET_JWT_JWKS": location}.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environ().jwt_jwks == location


def test_the_address_of_traces_needs_a_place_for_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    right = "http://jaeger.example:16686/trace/{trace_id}"
    monkeypatch.setenv("BUCKET_TRACE_URL", right)
    assert Settings.from_environ().trace_url == right
    for wrong in (
        "jaeger:16686/trace/{trace_id}", "javascript:{trace_id}", "http://jaeger/trace", "http://{trace_id}.example/",
        "http://u:p@jaeger/{trace_id}", "http://jaeger/{trace_id}{trace_id}",
    ):  # fmt: skip
        monkeypatch.setenv("BUCKET_TRACE_URL", wrong)
        with pytest.raises(SettingsError, match=r"BUCKET_TRACE_URL: is no URL with \{trace_id\}"):
            Settings.from_environ()
