"""Makes, lists, rotates and revokes keys, for the routes and for ``bucketd keys`` alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from shared.bootstrap import Services
from shared.domain.access.api_key import ApiKey, KeyRequest, issue_key, issue_successor
from shared.errors import BasketNotFound, KeyNotValid, ValidationFailed
from shared.timestamps import format_rfc3339

_WARNINGS_MAX: Final = 20
_NOT_IN_RECORD: Final = frozenset({"key", "warnings"})


def without_key(view: Mapping[str, Any]) -> dict[str, Any]:
    """Return the view of a new key as it may stand in the audit log: without the key itself, and its warnings."""
    return {name: value for name, value in view.items() if name not in _NOT_IN_RECORD}


class KeyService:
    """The keys of a server; ``on_change`` is told each key that this process has changed."""

    def __init__(self, services: Services, on_change: Callable[[ApiKey], None] = lambda _: None) -> None:
        self._keys = services.keys
        self._baskets = services.baskets
        self._integrations = services.integrations
        self._clock = services.clock
        self._pepper = services.settings.key_pepper.encode()
        self._on_change = on_change

    def create(self, request: KeyRequest, created_by: str) -> dict[str, Any]:
        """Make a key and return its view, with the key itself, which nobody can show again.

        Its ``warnings``, if any, name those of its baskets that do not exist: they may be made later, or misspelt.
        Raises ValidationFailed if it names an integration that is not registered, or another integrator's.
        """
        if request.integration is not None:
            self._check_integration(request.integration, request.integrator)
        warnings = self._missing_baskets(request)
        text, key = issue_key(request, self._now(), created_by, self._pepper)
        self._keys.add(key)
        view = {"id": key.id, "key": text} | self.view(key)
        return view | {"warnings": warnings} if warnings else view

    def rotate(self, key_id: str, grace: timedelta, created_by: str) -> dict[str, Any]:
        """Make the successor of a key, which itself ends after ``grace``; return the new one's view, with the key.

        Raises KeyNotFound, and KeyNotValid if it was revoked or rotated before, or has expired.
        """
        key, now = self._keys.get(key_id), self._now()
        if key.is_valid_at(now):
            text, successor = issue_successor(key, now, created_by, self._pepper)
            replaced = self._keys.replace(key_id, successor, now + grace)
            if replaced is not None:
                self._on_change(replaced)
                ends_at = format_rfc3339(replaced.expires_at)
                return {"id": successor.id, "key": text, "replaces": {"id": key_id, "expires_at": ends_at}} | self.view(
                    successor
                )
        raise KeyNotValid(f"the key {key_id} was revoked or rotated before, or has expired; make a new one")

    def revoke(self, key_id: str) -> dict[str, Any]:
        """Revoke a key for good and return its view; raises KeyNotFound."""
        key = self._keys.revoke(key_id, self._now())
        self._on_change(key)
        return self.view(key)

    def list_all(self, page: int) -> Iterator[dict[str, Any]]:
        """Yield the views of all keys, read ``page`` at a time."""
        after: str | None = None
        while found := self._keys.list_page(page, after):
            yield from map(self.view, found)
            after = found[-1].id

    def get(self, key_id: str) -> dict[str, Any]:
        """Return the view of a key; raises KeyNotFound."""
        return self.view(self._keys.get(key_id))

    def view(self, key: ApiKey) -> dict[str, Any]:
        """Return what anybody may see of a key who may see keys: never the key, never its hash."""
        return {
            "id": key.id,
            "name": key.name,
            "owner": key.owner,
            "role": str(key.role),
            "integrator": key.integrator,
            "status": self._status(key),
            "created_at": format_rfc3339(key.created_at),
            "created_by": key.created_by,
            "expires_at": format_rfc3339(key.expires_at),
            "last_used_at": format_rfc3339(key.last_used_at),
            "revoked_at": format_rfc3339(key.revoked_at),
            "replaced_by": key.replaced_by,
            "baskets": None if key.baskets is None else list(key.baskets),
            "networks": None if key.networks is None else [str(network) for network in key.networks],
            "payloads": key.payloads,
            "integration": key.integration,
        }

    def _check_integration(self, integration_id: str, integrator: str) -> None:
        integration = self._integrations.find(integration_id)
        if integration is None:
            fault = "is the id of no integration; GET /integrations lists those there are"
        elif integration.details.name != integrator:  # the approval of one must not let another submit
            fault = f"is the integration of {integration.details.name}, and this key is for {integrator}"
        else:
            return
        raise ValidationFailed(f"/integration: {fault}", details=[{"pointer": "/integration", "message": fault}])

    def _missing_baskets(self, request: KeyRequest) -> list[str]:
        """Return a sentence for each basket of the request that its integrator does not have; the first 20."""
        warnings: list[str] = []
        for name in request.baskets or ():
            try:
                self._baskets.get(request.integrator, name)
            except BasketNotFound as missing:
                warnings.append(f"/baskets: {missing.message}; the key may run it once it exists")
                if len(warnings) == _WARNINGS_MAX:
                    break
        return warnings

    def _status(self, key: ApiKey) -> str:
        if key.revoked_at is not None:
            return "revoked"
        return "active" if key.is_valid_at(self._now()) else "expired"

    def _now(self) -> datetime:
        return self._clock.now()
