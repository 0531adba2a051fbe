"""A gateway that lets nothing out, for a context without hosts."""

from __future__ import annotations

from functools import partialmethod
from typing import Any, NoReturn

from shared.outbound_hosts import origin_of_url
from worker.gateway.gateway_errors import gateway_error


class ClosedGateway:
    """A gateway of which no host may be called."""

    def request(self, method: str, url: str, **_options: Any) -> NoReturn:
        """Raise PermanentGatewayError."""
        raise gateway_error("not_allowed", f"{method} of {origin_of_url(str(url)) or 'no URL'}: no host may be called")

    get = partialmethod(request, "GET")
    post = partialmethod(request, "POST")
    put = partialmethod(request, "PUT")
    patch = partialmethod(request, "PATCH")
    delete = partialmethod(request, "DELETE")
