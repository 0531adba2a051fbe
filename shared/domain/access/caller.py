"""A caller and its role: what each role permits, and of which integrator a caller sees the objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from shared.domain.execution import PUBLIC_INTEGRATOR

Scope = str | None
"""The integrator whose objects a request may see; None is every integrator (an admin's)."""


class Permission(StrEnum):
    """What a route needs; ``api.auth.route_permissions`` has one for each route."""

    PUBLIC = "public"
    """Nothing: the route is the same for everyone."""
    OPTIONAL = "optional"
    """Nothing, but with a key the reply says more."""
    SESSION = "session"
    """Nothing here: the route is the dashboard's, which finds its caller by the session and then calls other routes."""
    METRICS = "metrics"
    """A key, or an address in ``BUCKET_METRICS_NETWORKS``."""
    IDENTIFY = "identify"
    """Any valid key or token."""
    READ = "read"
    READ_PAYLOADS = "read_payloads"
    SUBMIT = "submit"
    CONSUME = "consume"
    OPERATE = "operate"
    WRITE_BASKETS = "write_baskets"
    READ_AUDIT = "read_audit"
    ADMINISTER = "administer"


class Role(StrEnum):
    """The role of a key or a token, always within its integrator, except for ``admin``."""

    READER = "reader"
    INTEGRATOR = "integrator"
    OPERATOR = "operator"
    AUTHOR = "author"
    AUDITOR = "auditor"
    ADMIN = "admin"


_ANYONE: Final = frozenset(
    {Permission.PUBLIC, Permission.OPTIONAL, Permission.SESSION, Permission.METRICS, Permission.IDENTIFY}
)
_READER: Final = _ANYONE | {Permission.READ}
_INTEGRATOR: Final = _READER | {Permission.READ_PAYLOADS, Permission.SUBMIT, Permission.CONSUME}

ROLE_PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = MappingProxyType(
    {
        Role.READER: _READER,
        Role.INTEGRATOR: _INTEGRATOR,
        Role.OPERATOR: _INTEGRATOR | {Permission.OPERATE},
        Role.AUTHOR: _INTEGRATOR | {Permission.WRITE_BASKETS},
        Role.AUDITOR: _READER | {Permission.READ_AUDIT},
        Role.ADMIN: frozenset(Permission),
    }
)
"""The role table. A reader or an auditor also reads payloads if its key or token says so (``payloads``)."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, as its key or token says.

    ``subject`` names it in the audit log: ``key:<id>`` or the subject of a token. ``baskets`` are the only ones it may
    run, if there is such a list; ``payloads`` lets a reader see inputs, outputs and logs. ``integration`` is the
    registered integration that a key belongs to. ``sees_all`` is true for an admin.
    """

    subject: str
    role: Role
    integrator: str
    key_id: str | None = None
    baskets: frozenset[str] | None = None
    payloads: bool = False
    integration: str | None = None
    expires_at: datetime | None = None
    sees_all: bool = False

    @property
    def scope(self) -> Scope:
        """The integrator whose objects this caller may see; None is every integrator."""
        return None if self.sees_all else self.integrator

    @property
    def sees_payloads(self) -> bool:
        """Whether this caller may see inputs, outputs and logs."""
        return self.may(Permission.READ_PAYLOADS)

    def may(self, permission: Permission) -> bool:
        """Return whether the role of this caller permits it."""
        if permission is Permission.READ_PAYLOADS and self.payloads:
            return True
        return permission in ROLE_PERMISSIONS[self.role]


LOCAL_CALLER: Final = Caller("local", Role.ADMIN, PUBLIC_INTEGRATOR)
"""Everyone, while authentication is off: one integrator, and nothing is forbidden."""
OPERATOR_CALLER: Final = Caller("bucketd", Role.ADMIN, PUBLIC_INTEGRATOR, sees_all=True)
"""Whoever has the machine: the commands of ``bucketd`` see every integrator."""
PUBLIC_CALLER: Final = Caller("anonymous", Role.READER, PUBLIC_INTEGRATOR)
"""Whoever calls a public route, while authentication is required."""
