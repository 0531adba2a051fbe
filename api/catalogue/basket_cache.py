"""Caches the baskets of each integrator in this process for two seconds, so that a submit reads MongoDB only once.

The process that deletes a basket forgets it at once. Other processes may run it for up to ``CACHED_S`` after the
deletion, or run the old definition if the name is taken again meanwhile.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from api.catalogue.basket_definition import check_basket_name, parse_basket
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.definitions.basket import Basket
from shared.errors import ValidationFailed

CACHED_S: Final = 2.0
_CACHED_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class RunnableBasket:
    """A basket as a graph of steps, and whether every integrator shares it."""

    graph: Basket
    is_shared: bool


class BasketCache:
    """One process's cache of baskets, as graphs of steps."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._cached: dict[tuple[str, str], tuple[float, RunnableBasket]] = {}
        self._deletions = 0

    def get(self, integrator: str, name: str) -> RunnableBasket:
        """Return an integrator's own basket of a name, else the shared one.

        Raises BasketNotFound, or AgentNotFound if one of its agents is gone.

        Raises ValidationFailed if it was stored before a rule that it breaks, and AgentUnavailable if the spec of one
        of its agents is wrong.
        """
        now, deletions = boottime_s(), self._deletions
        cached = self._cached.get((integrator, name))
        if cached is not None and now - cached[0] < CACHED_S:
            return cached[1]
        stored = self._services.baskets.get(integrator, check_basket_name(name))
        try:
            graph = parse_basket(stored.definition, self._services.catalogue)
        except ValidationFailed as error:
            raise _outdated(name, error) from error
        basket = RunnableBasket(graph, is_shared=stored.is_shared)
        with self._lock:
            if deletions == self._deletions:  # else this very basket may have been deleted after it was read
                if len(self._cached) >= _CACHED_MAX:
                    self._cached.clear()
                self._cached[integrator, name] = (now, basket)
        return basket

    def forget(self, name: str) -> None:
        """Forget a name of which a basket was deleted, for all integrators; the next ``get`` reads MongoDB."""
        with self._lock:
            self._deletions += 1
            for key in [key for key in self._cached if key[1] == name]:
                del self._cached[key]


def _outdated(name: str, error: ValidationFailed) -> ValidationFailed:
    details = [
        {"pointer": "/basket_name", "message": f"{fault['pointer']} of the basket: {fault['message']}"}
        for fault in error.details
    ]
    return ValidationFailed(
        f"the basket {name!r} cannot run, because it was stored before a rule that it breaks: {error.message}; "
        "delete it and create it again without this fault",
        details=details,
    )
