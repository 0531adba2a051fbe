"""Errors of the gateway: each has a kind (its class of failure), and is transient or permanent as its kind says.

    GatewayError                 kind, provider, status, retry_after_s, response
    ├── TransientGatewayError    network, timeout, rate_limited, server_error, circuit_open, rate_limit_local
    └── PermanentGatewayError    client_error, not_allowed, too_large, bad_response, invalid_request, certificate,
                                 cancelled

A text never holds a query string, user, password, header or value of the agent's settings.
"""

from __future__ import annotations

from typing import Any, Final

from worker.agent_errors import PermanentError, TransientError

TRANSIENT_KINDS: Final = frozenset(
    {"network", "timeout", "rate_limited", "server_error", "circuit_open", "rate_limit_local"}
)
PERMANENT_KINDS: Final = frozenset(
    {"client_error", "not_allowed", "too_large", "bad_response", "invalid_request", "certificate", "cancelled"}
)


class GatewayError(Exception):
    """A call that brought no good response; ``str`` begins with its kind.

    ``status`` and ``response`` (read) are those of a reply with 4xx or 5xx, else None. ``retry_after_s`` says when
    another call may succeed, if that is known.
    """

    def __init__(
        self,
        kind: str,
        text: str,
        *,
        provider: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
        response: Any = None,
    ) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text
        self.provider = provider
        self.status = status
        self.retry_after_s = retry_after_s
        self.response = response


class TransientGatewayError(GatewayError, TransientError):
    """Another attempt may help: the step is tried again as its retry policy says, and not before the provider allows.

    An open circuit is not waited for: while a provider is gone, its runs fail fast.
    """

    def __init__(self, kind: str, text: str, **facts: Any) -> None:
        super().__init__(kind, text, **facts)
        self.wait_s = 0.0 if kind == "circuit_open" else self.retry_after_s or 0.0


class PermanentGatewayError(GatewayError, PermanentError):
    """Another attempt would fail the same way."""


def gateway_error(kind: str, text: str, **facts: Any) -> GatewayError:
    """Return the error of a kind; ``facts`` are provider, status, retry_after_s and response."""
    return (TransientGatewayError if kind in TRANSIENT_KINDS else PermanentGatewayError)(kind, text, **facts)
