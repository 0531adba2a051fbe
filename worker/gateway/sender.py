"""Sends one request and reads its response; errors of the HTTP library become those of the gateway.

This module imports the HTTP library, which takes 20 MB: it is imported at an agent's first call and never before.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import httpcore2
import httpx2

from worker.gateway.connection import AddressNotAllowed, time_limit
from worker.gateway.gateway_errors import GatewayError, gateway_error
from worker.gateway.response import GatewayResponse, GzipFault, read_response
from worker.gateway.retry_after import parse_retry_after

# What a request keeps if it is redirected to another origin: no credentials in whatever header, no idempotency key.
_KEPT_HEADERS: Final = frozenset(
    {"accept", "accept-encoding", "accept-language", "content-length", "content-type", "host", "traceparent"}
    | {"transfer-encoding", "user-agent", "x-request-id"}
)
_TOO_MANY_REQUESTS: Final = 429
_CLIENT_ERRORS: Final = range(400, 500)


class Sender:
    """Sends the requests of one attempt of a step; its cookies live as long as that."""

    def __init__(self, transport: httpx2.BaseTransport) -> None:
        self._client = httpx2.Client(transport=transport, trust_env=False, follow_redirects=False)

    def build(self, method: str, url: str, options: dict[str, Any]) -> httpx2.Request:
        """Build a request that can be sent again; ``options`` are those of httpx2's ``build_request``."""
        try:
            request = self._client.build_request(method.upper(), url, **options)
            request.read()
        except httpx2.InvalidURL:  # its text may quote a password
            raise gateway_error("invalid_request", "the URL cannot be read") from None
        return request

    def send(self, request: httpx2.Request, auth: Any, provider: str, limit_s: float) -> GatewayResponse:
        """Send ``request`` within ``limit_s``; a reply with 4xx or 5xx is a GatewayError too."""
        if limit_s <= 0:
            raise gateway_error("timeout", f"no time was left to call {provider}", provider=provider)
        request.extensions["timeout"] = httpx2.Timeout(limit_s).as_dict()
        with _gateway_errors(provider, limit_s), time_limit(limit_s):
            raw = self._client.send(request, auth=auth, stream=True)
            try:
                response = read_response(raw, provider)
            finally:
                raw.close()
        response.next_request, response.elapsed = raw.next_request, raw.elapsed
        if raw.has_redirect_location and raw.next_request is None:
            raise gateway_error("bad_response", f"{provider} redirects to what is no URL", provider=provider)
        if response.is_error:
            raise _error_of_status(response, provider)
        return response


def redirected(request: httpx2.Request, following: httpx2.Request) -> httpx2.Request:
    """Return the request that follows a redirect, without credentials if it leads to another origin."""
    is_same_origin = _origin(request.url) == _origin(following.url)
    for name in set(following.headers):
        is_kept = is_same_origin or name in _KEPT_HEADERS
        if not is_kept or (name == "idempotency-key" and following.method != request.method):
            del following.headers[name]
    following.read()
    return following


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _error_of_status(response: GatewayResponse, provider: str) -> GatewayError:
    status = response.status_code
    if status == _TOO_MANY_REQUESTS:
        kind = "rate_limited"
    else:
        kind = "client_error" if status in _CLIENT_ERRORS else "server_error"
    return gateway_error(
        kind,
        f"{provider} answered {status} {_phrase(status)} to a {response.request.method}",
        provider=provider,
        status=status,
        retry_after_s=parse_retry_after(response.headers.get("retry-after")),
        response=response,
    )


def _phrase(status: int) -> str:
    """Return the standard's words: those of the provider may be anything."""
    return f"({HTTPStatus(status).phrase})" if status in set(HTTPStatus) else ""


@contextmanager
def _gateway_errors(provider: str, limit_s: float) -> Iterator[None]:
    try:
        yield
    except AddressNotAllowed as error:
        raise gateway_error("not_allowed", str(error), provider=provider) from None
    except httpcore2.TimeoutException as error:
        raise gateway_error(
            "timeout", f"{provider} did not answer within {limit_s:.3g} s", provider=provider
        ) from error
    except (httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol):  # their texts quote headers
        text = "the request cannot be sent: its method or a header has letters that HTTP does not allow"
        raise gateway_error("invalid_request", text, provider=provider) from None
    except httpcore2.ProxyError as error:  # its text is the status line of the proxy
        raise gateway_error(
            "network", f"the proxy did not connect to {provider}: {str(error)[:60]}", provider=provider
        ) from None
    except httpcore2.NetworkError as error:
        if certificate_fault := _certificate_fault(error):
            text = f"the certificate of {provider} is not trusted: {certificate_fault}"
            raise gateway_error("certificate", text, provider=provider) from error
        raise gateway_error(
            "network", f"no answer from {provider}: {str(error) or 'it broke off'}", provider=provider
        ) from error
    except httpcore2.ProtocolError:  # its text may quote headers
        raise gateway_error("network", f"{provider} closed the connection or broke HTTP", provider=provider) from None
    except (GzipFault, httpx2.DecodingError, httpx2.RemoteProtocolError) as error:
        text = f"the answer of {provider} cannot be decoded: {type(error).__name__}"
        raise gateway_error("bad_response", text, provider=provider) from None


def _certificate_fault(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""
