"""What clients see of a basket: its definition, its faults, and, if keys are required, whether all share it."""

from __future__ import annotations

from typing import Any

from api.catalogue.availability import AgentAvailability
from api.catalogue.basket_definition import find_stored_faults
from shared.bootstrap import Services
from shared.domain.access.caller import Caller
from shared.store.basket_store import StoredBasket


class BasketViews:
    """Views of stored baskets."""

    def __init__(self, services: Services, availability: AgentAvailability) -> None:
        self._catalogue = services.catalogue
        self._requires_key = services.settings.requires_key
        self._availability = availability

    def new(self, basket: StoredBasket, caller: Caller) -> dict[str, Any]:
        """Return the view of a basket that was just created; an admin also sees whose it is."""
        view = {**basket.definition, "basket_name": basket.definition["name"]}
        if self._requires_key:
            view["shared"] = basket.is_shared
            if caller.scope is None:
                view["integrator"] = basket.integrator
        return view

    def stored(self, basket: StoredBasket, caller: Caller) -> dict[str, Any]:
        """Return the view of a basket with its present faults, if it has any."""
        definition = basket.definition
        faults = [*find_stored_faults(definition, self._catalogue), *self._availability.find_faults(definition)]
        return self.new(basket, caller) | ({"faults": faults} if faults else {})
