"""Registers, moves and activates integrations, for the routes and for ``bucketd integrations`` alike.

Each write names the version that it was decided on: if somebody wrote first, it is decided again on the newer state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import structlog

from api.integrations.integration_views import compliance_view, integration_view
from shared import fault_injection
from shared.bootstrap import Services
from shared.domain.access.api_key import ApiKey, KeyRequest, issue_key
from shared.domain.access.caller import Role
from shared.domain.access.integration import (
    Integration,
    IntegrationAction,
    IntegrationDetails,
    IntegrationState,
    IntegrationStatus,
    correct_integration,
    move_integration,
    request_integration,
    tick_items,
)
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.errors import (
    AgentNotFound,
    BasketNotFound,
    IllegalMove,
    KeyNotFound,
    StaleWrite,
    Unavailable,
    ValidationFailed,
)
from shared.timestamps import format_rfc3339

_WRITES_MAX: Final = 10


class IntegrationService:
    """The register of a server; ``on_change`` and ``on_revoked`` are told what this process has changed."""

    def __init__(
        self,
        services: Services,
        *,
        on_change: Callable[[IntegrationState], None] = lambda _: None,
        on_revoked: Callable[[ApiKey], None] = lambda _: None,
    ) -> None:
        self._store = services.integrations
        self._keys = services.keys
        self._baskets = services.baskets
        self._catalogue = services.catalogue
        self._clock = services.clock
        self._pepper = services.settings.key_pepper.encode()
        self._on_change = on_change
        self._on_revoked = on_revoked

    def request(self, details: IntegrationDetails, by: str) -> dict[str, Any]:
        """Register an integration and return its view; raises ValidationFailed and IntegrationExists."""
        self._check_names(details)
        integration = request_integration(details, by, self._clock.now())
        self._store.add(integration)
        return integration_view(integration)

    def correct(self, integration_id: str, details: IntegrationDetails, by: str) -> dict[str, Any]:
        """Replace the details of an integration that is not in review yet, and return its view."""
        self._check_names(details)
        return integration_view(
            self._settle(integration_id, lambda found, now: correct_integration(found, details, by, now))
        )

    def move(
        self, integration_id: str, action: IntegrationAction, by: str, comment: str | None = None
    ) -> dict[str, Any]:
        """Move an integration and return its view; the first activation also returns its key, which none else shows.

        Raises IntegrationNotFound, IllegalMove and IntegrationIncomplete.
        """
        text: str | None = None
        issued: ApiKey | None = None

        def decide(found: Integration, now: datetime) -> Integration:
            nonlocal text, issued
            text = issued = None
            moved = move_integration(found, action, by, now, comment)
            if action is IntegrationAction.ACTIVATE and found.key_id is None:
                text, issued, reserved = self._issue_key(found, by, now)
                return replace(moved, key_id=issued.id, pending_key_id=None, version=reserved.version)
            return moved

        view = integration_view(self._settle(integration_id, decide))
        if text is None or issued is None:
            return view
        return view | {"key": text, "key_expires_at": format_rfc3339(issued.expires_at)}

    def tick(self, integration_id: str, done_by_item: Mapping[str, bool], by: str) -> dict[str, Any]:
        """Tick off items of the checklists, or open them again, and return how far they are."""
        return compliance_view(
            self._settle(integration_id, lambda found, now: tick_items(found, done_by_item, by, now))
        )

    def get(self, integration_id: str) -> dict[str, Any]:
        """Return the view of an integration; raises IntegrationNotFound."""
        return integration_view(self._store.get(integration_id))

    def compliance(self, integration_id: str) -> dict[str, Any]:
        """Return how far the checklists of an integration are; raises IntegrationNotFound."""
        return compliance_view(self._store.get(integration_id))

    def list_page(
        self, limit: int, after: str | None = None, statuses: Sequence[IntegrationStatus] = ()
    ) -> list[dict[str, Any]]:
        """Return the views of at most ``limit`` integrations sorted by name, without their histories."""
        return [integration_view(found, with_history=False) for found in self._store.list_page(limit, after, statuses)]

    def list_all(self, page: int, statuses: Sequence[IntegrationStatus] = ()) -> Iterator[dict[str, Any]]:
        """Yield the views of all integrations, read ``page`` at a time."""
        after: str | None = None
        while found := self.list_page(page, after, statuses):
            yield from found
            after = found[-1]["name"]

    def _settle(self, integration_id: str, decide: Callable[[Integration, datetime], Integration]) -> Integration:
        for _ in range(_WRITES_MAX):
            with suppress(StaleWrite):
                return self._save(integration_id, decide)
        raise Unavailable("others keep changing this integration; nothing was stored, send the same request again")

    def _save(self, integration_id: str, decide: Callable[[Integration, datetime], Integration]) -> Integration:
        found = self._store.get(integration_id)
        decided = decide(found, self._clock.now())
        if decided == found:
            return found
        try:
            saved = self._store.save(decided)
        except StaleWrite:
            if decided.key_id == found.key_id:
                raise
            self._revoke(str(decided.key_id))  # nobody has seen it
            # No new attempt: two activations would overtake each other again and again.
            raise IllegalMove(
                f"somebody else changed {found.details.name!r} during this activation; look at it, then activate again"
            ) from None
        self._on_change(saved.state)
        return saved

    def _issue_key(self, found: Integration, by: str, now: datetime) -> tuple[str, ApiKey, Integration]:
        """Store the key of an activation; return it as text, its record, and the integration as it is stored now.

        Its id is noted first. So a death before the integration becomes active leaves a key that nobody has seen, that
        may not submit, and that the next activation revokes.
        """
        request = KeyRequest(
            role=Role.INTEGRATOR,
            integrator=found.details.name,
            name=f"integration {found.details.name}",
            baskets=found.details.baskets or None,
            integration=found.id,
        )
        text, key = issue_key(request, now, by, self._pepper)
        reserved = self._store.save(replace(found, pending_key_id=key.id))
        if found.pending_key_id is not None:  # only now can its activation, if it still runs, no longer succeed
            self._revoke(found.pending_key_id)
        self._keys.add(key)
        fault_injection.reach("api.activation_key_stored")
        return text, key, reserved

    def _revoke(self, key_id: str) -> None:
        try:
            self._on_revoked(self._keys.revoke(key_id, self._clock.now()))
        except KeyNotFound:  # the activation that noted it died before it stored the key
            structlog.get_logger().info("a key of an activation was never stored", key_id=key_id)

    def _check_names(self, details: IntegrationDetails) -> None:
        """Raise ValidationFailed for agents and baskets that are not there, with the nearest of each."""
        faults = []
        for index, agent in enumerate(details.agents):
            try:
                self._catalogue.check_known(agent)
            except AgentNotFound as error:
                faults.append({"pointer": f"/agents/{index}", "message": error.message})
        for index, basket in enumerate(details.baskets):
            if (fault := self._basket_fault(details.name, basket)) is not None:
                faults.append({"pointer": f"/baskets/{index}", "message": fault})
        if faults:
            summary = "; ".join(f"{fault['pointer']}: {fault['message']}" for fault in faults[:3])
            raise ValidationFailed(summary, details=faults)

    def _basket_fault(self, integrator: str, basket: str) -> str | None:
        fault = ""
        for owner in (integrator, PUBLIC_INTEGRATOR):
            try:
                self._baskets.get(owner, basket)
            except BasketNotFound as error:
                fault = fault if "did you mean" in fault else error.message
            else:
                return None
        return fault
