"""The last good answer to one read: kept after a success, returned as stale if the provider gives none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from shared.live.providers.last_answers import Answer, answer_key
from worker.gateway.breaker_failover import BreakerFailover
from worker.gateway.gateway_errors import TRANSIENT_KINDS, GatewayError
from worker.gateway.step_facts import StepFacts

if TYPE_CHECKING:  # they import the HTTP library, which takes 20 MB: not before an agent's first call
    import httpx2

    from worker.gateway.response import GatewayResponse

# Neither cookies nor what belongs to one exchange.
_KEPT_HEADERS: Final = ("content-type", "content-language", "date", "etag", "last-modified", "link")


class LastAnswer:
    """The answer to one request; nobody else gets it: the key names the agent, its integrator and its credentials."""

    def __init__(self, store: BreakerFailover, step: StepFacts, request: httpx2.Request, auth: Any) -> None:
        """Make the key of ``request``, which must be as the agent made it."""
        self._store = store
        self._request = request
        self._key = answer_key(
            (
                step.agent,
                step.integrator,
                sorted(step.settings.items()),
                str(request.url),
                sorted(request.headers.raw),
                _credentials_of(auth),
            )
        )

    def keep(self, response: GatewayResponse) -> None:
        """Keep a good answer, unless it is large."""
        if response.is_success:
            headers = tuple((name, response.headers[name]) for name in _KEPT_HEADERS if name in response.headers)
            self._store.keep_answer(self._key, Answer(response.status_code, headers, response.content))

    def read(self, error: GatewayError) -> GatewayResponse | None:
        """Return the answer that stands in for a call that failed with ``error``; None if there is none."""
        answer = self._store.read_answer(self._key) if error.kind in TRANSIENT_KINDS else None
        if answer is None:
            return None
        from worker.gateway.response import GatewayResponse

        response = GatewayResponse(
            answer.status, headers=list(answer.headers), content=answer.body, request=self._request
        )
        response.provider, response.stale_s = error.provider, answer.age_s
        return response


def _credentials_of(auth: Any) -> object:
    """Return what tells the credentials of a request from others; raises ValueError if nothing does.

    A function keeps them where nobody can look: in its closure, its defaults, or the object that it is bound to.
    """
    if auth is None or isinstance(auth, tuple):
        return auth
    from httpx2 import Auth

    if isinstance(auth, Auth) and vars(auth):
        return type(auth).__qualname__, vars(auth)
    raise ValueError(
        "fallback=True takes auth=(user, password), or an httpx2.Auth that has its credentials as attributes: by any "
        "other, the answer for one user could not be told from that for another; put them into headers instead"
    )
