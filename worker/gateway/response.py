"""The response that an agent gets: that of httpx2, read, with the mark ``stale``."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx2

from worker.gateway.gateway_errors import gateway_error

BODY_MAX_BYTES: Final = 8 * 1024 * 1024
_GZIP: Final = zlib.MAX_WBITS | 16
_PIECE_BYTES: Final = 2**20
_OF_THE_TRANSFER: Final = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection"})


class GatewayResponse(httpx2.Response):
    """A response whose body is read and decoded.

    ``stale`` is true if it is the last good answer of a provider that gives none now, and ``stale_s`` is its age.
    """

    provider: str = ""
    stale_s: float | None = None
    on_bad_json: Callable[[], None] | None = None

    @property
    def stale(self) -> bool:
        """Whether this is an old answer, kept from an earlier call."""
        return self.stale_s is not None

    def json(self, **options: Any) -> Any:
        """Return the body as JSON; raises PermanentGatewayError of the kind ``bad_response`` if it is none."""
        try:
            return super().json(**options)
        except (ValueError, RecursionError) as error:
            if self.on_bad_json is not None:
                self.on_bad_json()
            kind = self.headers.get("content-type", "no content type").partition(";")[0][:60]
            raise gateway_error(
                "bad_response",
                f"{self.provider} answered {self.status_code} with {len(self.content)} bytes of {kind}, "
                "which are no JSON",
                provider=self.provider,
                status=self.status_code,
                response=self,
            ) from error


class GzipFault(ValueError):
    """A compressed body that is broken or incomplete."""


def read_response(response: httpx2.Response, provider: str) -> GatewayResponse:
    """Read and decode the body, at most 8 MiB of it; raises PermanentGatewayError if it is larger."""
    length = response.headers.get("content-length", "")
    body = bytearray()
    has_body = response.request.method != "HEAD"  # whose length is that of the body that a GET would bring
    is_too_large = has_body and length.isdecimal() and int(length) > BODY_MAX_BYTES
    if not is_too_large:
        for piece in _decoded(response):
            body += piece
            if len(body) > BODY_MAX_BYTES:
                is_too_large = True
                break
    if is_too_large:
        raise gateway_error(
            "too_large",
            f"{provider} answered with more than {BODY_MAX_BYTES} bytes",
            provider=provider,
            status=response.status_code,
        )
    headers = [(name, value) for name, value in response.headers.raw if name.decode().lower() not in _OF_THE_TRANSFER]
    read = GatewayResponse(
        response.status_code,
        headers=headers,
        content=bytes(body),
        request=response.request,
        extensions={name: value for name, value in response.extensions.items() if name != "network_stream"},
    )
    read.provider = provider
    return read


def _decoded(response: httpx2.Response) -> Iterator[bytes]:
    """Yield the decoded body in pieces of at most a megabyte, so that a small body cannot fill the memory."""
    if response.headers.get("content-encoding", "").strip().lower() in {"gzip", "x-gzip"}:
        return _unzip(response.iter_raw())
    return response.iter_bytes()


def _unzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    # httpx2 2.16 ends after the first of several members, and takes a body that breaks off for a whole one.
    member, is_between = zlib.decompressobj(_GZIP), True
    for compressed in pieces:
        rest = compressed
        while rest or not is_between:
            try:
                piece = member.decompress(rest, _PIECE_BYTES)
            except zlib.error as error:
                raise GzipFault(str(error)) from None
            yield piece
            rest, is_between = member.unconsumed_tail, False
            if member.eof:
                rest, member, is_between = member.unused_data, zlib.decompressobj(_GZIP), True
            elif not rest and len(piece) < _PIECE_BYTES:
                break
    if not is_between:
        raise GzipFault("the body is incomplete")
