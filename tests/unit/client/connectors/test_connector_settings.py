"""The settings: read late, checked, and silent about the token."""

from __future__ import annotations

from pathlib import Path

import pytest

from bucket_client.connectors import BadConnectorSetting, ConnectorSettings

VARIABLES = ("BHIV_CORE_URL", "BHIV_CORE_TOKEN", "BHIV_FAILED_LOG", "BHIV_BUCKET_DIR")
EXAMPLE = Path(__file__).parents[4] / "client" / ".env.example"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_defaults_are_those_of_the_specification() -> None:
    settings = ConnectorSettings.from_environment()
    assert settings.core_url == "http://localhost:9000/bhiv/core"
    assert settings.failed_log == Path("data/failed_core_sends.log")
    assert settings.bucket_dir == Path("data/bucket")
    assert settings.core_token is None
    assert settings.call_timeout_s == 5


def test_the_environment_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    ConnectorSettings.from_environment()
    monkeypatch.setenv("BHIV_CORE_URL", "https://core.example/in")
    monkeypatch.setenv("BHIV_CORE_TOKEN", "s3cret\n")  # as a file that ends with a line break gives it
    monkeypatch.setenv("BHIV_FAILED_LOG", "elsewhere.log")
    monkeypatch.setenv("BHIV_BUCKET_DIR", "files")
    expected = ConnectorSettings("https://core.example/in", "s3cret", Path("elsewhere.log"), Path("files"))
    assert ConnectorSettings.from_environment() == expected


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, " ")
    assert ConnectorSettings.from_environment() == ConnectorSettings()


def test_the_example_file_holds_each_variable_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in EXAMPLE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    example = dict(line.split("=", 1) for line in lines)
    assert sorted(example) == sorted(VARIABLES)
    for name, value in example.items():
        monkeypatch.setenv(name, value)
    assert ConnectorSettings.from_environment() == ConnectorSettings()


def test_the_token_is_not_in_the_text_of_the_settings() -> None:
    assert "s3cret" not in repr(ConnectorSettings(core_token="s3cret"))


@pytest.mark.parametrize("token", ["", "s3cret two", "s3cret\r\nX: y", "s3crét"])
def test_a_token_that_is_no_header_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(BadConnectorSetting, match="BHIV_CORE_TOKEN") as caught:
        ConnectorSettings(core_token=token)
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:9000",
        "ftp://core/in",
        "http://",
        "http://:9000/in",
        "http://[::1/in",
        "http://core:99999/in",
        "http://core:x/in",
        "http://me:s3cret@core/in",
        "http://s3cret@core/in",
    ],
)
def test_an_address_that_cannot_be_called_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(BadConnectorSetting, match="BHIV_CORE_URL") as caught:
        ConnectorSettings(core_url=url)
    assert "s3cret" not in str(caught.value)


def test_a_query_is_not_in_the_address_for_messages() -> None:
    assert ConnectorSettings(core_url="http://core/in?key=s3cret#x").public_url == "http://core/in"


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_time_limit_of_nothing_is_refused(timeout_s: float) -> None:
    with pytest.raises(BadConnectorSetting, match="call_timeout_s"):
        ConnectorSettings(call_timeout_s=timeout_s)
