"""The keys of ``bucketd up --auth``: an admin's for the person, and a short-lived one for the start itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from shared.bootstrap import Services
from shared.domain.access.api_key import ApiKey, KeyRequest, issue_key
from shared.domain.access.audit_event import AuditEvent, Outcome
from shared.domain.access.caller import Role
from shared.domain.execution import PUBLIC_INTEGRATOR
from shared.settings import Settings

_STARTED_BY: Final = "bucketd up"
_START_MAX: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class StackKeys:
    """Keys that were made before there is a store; :meth:`store` makes them valid.

    ``startup`` is for the readiness check of the worker and for the self-test.
    """

    startup: str
    _admin: str
    _startup_record: ApiKey
    _admin_record: ApiKey

    @classmethod
    def issue(cls, settings: Settings) -> StackKeys:
        """Make the keys; nothing is stored yet."""
        now, pepper = datetime.now(UTC), settings.key_pepper.encode()
        startup_request = KeyRequest(Role.INTEGRATOR, PUBLIC_INTEGRATOR, "the start of the stack", _START_MAX)
        admin_request = KeyRequest(Role.ADMIN, PUBLIC_INTEGRATOR, "the first admin")
        startup, startup_record = issue_key(startup_request, now, _STARTED_BY, pepper)
        admin, admin_record = issue_key(admin_request, now, "bucketd up --auth", pepper)
        return cls(startup, admin, startup_record, admin_record)

    def store(self, services: Services) -> str | None:
        """Store the keys; return the admin's, which is stored only if there is no other valid one, else None."""
        now = services.clock.now()
        services.keys.remove_ended(_STARTED_BY, now)
        self._add(services, self._startup_record)
        if services.keys.has_valid_admin(now):
            return None
        self._add(services, self._admin_record)
        return self._admin

    @staticmethod
    def _add(services: Services, key: ApiKey) -> None:
        created = AuditEvent(
            at=services.clock.now(),
            action="key.create",
            outcome=Outcome.OK,
            subject=key.created_by,
            integrator=key.integrator,
            object=key.id,
        )
        services.audit.add(created)
        services.keys.add(key)

    def end_startup(self, services: Services) -> None:
        """Revoke the key of the start."""
        services.keys.revoke(self._startup_record.id, services.clock.now())
