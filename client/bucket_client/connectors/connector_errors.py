"""The errors of the connectors; none of them ever holds the token.

ConnectorError
├── BadConnectorSetting   a variable of the environment or a setting is wrong (a ValueError too)
├── PayloadNotJson        a payload cannot be written as JSON (a ValueError too)
├── FilenameRefused       a file name is empty, or leads out of the bucket folder (a ValueError too)
└── CoreSendFailed        Core did not take a payload
"""

from __future__ import annotations

from pathlib import Path


class ConnectorError(Exception):
    """A connector could not do what was asked."""


class BadConnectorSetting(ConnectorError, ValueError):
    """A setting is wrong; the message names the variable and what to write."""


class PayloadNotJson(ConnectorError, ValueError):
    """The payload cannot be written as JSON; nothing was sent, saved or logged."""


class FilenameRefused(ConnectorError, ValueError):
    """The file name does not lead to a file inside the bucket folder; nothing was written."""


class CoreSendFailed(ConnectorError):
    """Core did not take the payload.

    ``calls`` is the number of calls that were made, ``status`` the status of the last reply, or None if there was none.
    ``logged_to`` is the failure log that holds the payload now, or None if it could not be written.
    """

    def __init__(
        self,
        message: str,
        *,
        calls: int = 0,
        status: int | None = None,
        idempotency_key: str = "",
        logged_to: Path | None = None,
    ) -> None:
        super().__init__(message)
        self.calls = calls
        self.status = status
        self.idempotency_key = idempotency_key
        self.logged_to = logged_to
