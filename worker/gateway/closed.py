"""A gateway that lets nothing out, for a context without hosts."""

from __future__ import annotations

from functools import partialmethod
from typing import Any, NoReturn

from worker.agent_errors import PermanentError


class ClosedGateway:
    """A gateway of which no host may be called."""

    def request(self, method: str, url: str, **_options: Any) -> NoReturn:
        """Raise PermanentError."""
        raise PermanentError(f"{method} {url} is not allowed: no host may be called")

    get = partialmethod(request, "GET")
    post = partialmethod(request, "POST")
    put = partialmethod(request, "PUT")
    patch = partialmethod(request, "PATCH")
    delete = partialmethod(request, "DELETE")
