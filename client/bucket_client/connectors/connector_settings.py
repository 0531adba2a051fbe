"""The settings of the connectors, read from the environment at each call; a token is never shown."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import httpx2

from bucket_client.connectors.connector_errors import BadConnectorSetting

DEFAULT_CORE_URL: Final = "http://localhost:9000/bhiv/core"
DEFAULT_FAILED_LOG: Final = Path("data/failed_core_sends.log")
DEFAULT_BUCKET_DIR: Final = Path("data/bucket")


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    """Where Core is and where files go; relative paths start at the working directory.

    ``call_timeout_s`` bounds one call to Core from the connect to the last byte of the reply.
    Raises BadConnectorSetting if a value is wrong.
    """

    core_url: str = DEFAULT_CORE_URL
    core_token: str | None = field(default=None, repr=False)
    failed_log: Path = DEFAULT_FAILED_LOG
    bucket_dir: Path = DEFAULT_BUCKET_DIR
    call_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        _check_url(self.core_url)
        if self.core_token is not None and not is_header_value(self.core_token):
            raise BadConnectorSetting("BHIV_CORE_TOKEN must be printable ASCII without spaces; the value is not shown")
        if not self.call_timeout_s > 0:
            raise BadConnectorSetting(f"call_timeout_s must be more than 0 seconds, not {self.call_timeout_s}")

    @classmethod
    def from_environment(cls) -> Self:
        """Return the settings that the ``BHIV_*`` variables hold now; an empty variable means the default."""
        return cls(
            core_url=_variable("BHIV_CORE_URL") or DEFAULT_CORE_URL,
            core_token=_variable("BHIV_CORE_TOKEN") or None,
            failed_log=Path(_variable("BHIV_FAILED_LOG") or DEFAULT_FAILED_LOG),
            bucket_dir=Path(_variable("BHIV_BUCKET_DIR") or DEFAULT_BUCKET_DIR),
        )

    @property
    def public_url(self) -> str:
        """The address of Core without its query, for messages and logs: a query may hold a key."""
        return self.core_url.partition("#")[0].partition("?")[0]

    def redact(self, text: str) -> str:
        """Return ``text`` without the token: a reply may repeat the headers of its request."""
        return text.replace(self.core_token, "[token]") if self.core_token else text


def is_header_value(text: str) -> bool:
    """Return whether ``text`` can be sent as one word in a header: printable ASCII without spaces."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def _check_url(url: str) -> None:
    """Raise BadConnectorSetting if Core cannot be called at ``url``; the message never shows it: it may hold a key."""
    if not _is_http_url(url):
        raise BadConnectorSetting(f"BHIV_CORE_URL must be written like {DEFAULT_CORE_URL}, with http or https")
    if "@" in urlsplit(url).netloc:
        raise BadConnectorSetting("BHIV_CORE_URL must hold no user and no password; use BHIV_CORE_TOKEN")


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        httpx2.URL(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except (httpx2.InvalidURL, ValueError):  # of urlsplit: brackets that do not match, a port out of range
        return False
