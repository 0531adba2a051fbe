"""The settings of a client: arguments, the environment, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from bucket_client import Bucket, Invalid
from bucket_client.settings import ClientSettings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUCKET_URL", raising=False)
    monkeypatch.delenv("BUCKET_API_KEY", raising=False)


def test_arguments_win_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ClientSettings.read(None, None, 30, 5).url == "http://localhost:8000"
    monkeypatch.setenv("BUCKET_URL", "http://bucket.example/prefix/")
    monkeypatch.setenv("BUCKET_API_KEY", "from-the-environment")
    read = ClientSettings.read(None, None, 30, 5)
    assert (read.url, read.api_key) == ("http://bucket.example/prefix", "from-the-environment")
    given = ClientSettings.read("https://other.example", "given", 30, 5)
    assert (given.url, given.api_key) == ("https://other.example", "given")


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://a", "http://", "http://a?b=c", "http://user:word@a", "http://[::1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="address"):
        Bucket(url)


@pytest.mark.parametrize("key", ["sec ret", "schlüssel", "a\nb"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(Invalid, match="not shown") as caught:
        Bucket("http://a", key)
    assert key not in str(caught.value)
    assert ClientSettings.read("http://a", "from-a-file\n", 30, 5).api_key == "from-a-file"


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": -1}, {"retries": -1}, {"timeout": float("nan")}, {"timeout": 1e10}]
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="must be"):
        Bucket("http://a", **options)


def test_the_key_is_never_shown() -> None:
    settings = ClientSettings.read("http://a", "not-to-be-seen", 30, 5)
    assert "not-to-be-seen" not in repr(settings)
