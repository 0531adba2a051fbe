"""The record of an API key: everything but the key itself, which only its holder has; how one is made."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from shared.domain.access.caller import Caller, Role
from shared.domain.access.key_format import SALT_BYTES, hash_key, new_key, pepper_id_of

DEFAULT_LIFE: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as it is stored; ``replaced_by`` is the key of its rotation, after which it lives for a grace."""

    id: str
    key_hash: bytes
    salt: bytes
    name: str
    role: Role
    integrator: str
    created_at: datetime
    created_by: str
    expires_at: datetime
    pepper_id: str = ""
    baskets: tuple[str, ...] | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] | None = None
    payloads: bool = False
    integration: str | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    replaced_by: str | None = None
    owner: str = ""
    """Who answers for it: a person or a team."""

    def is_valid_at(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return self.revoked_at is None and now < self.expires_at

    def caller(self) -> Caller:
        """Return who calls with this key."""
        return Caller(
            subject=f"key:{self.id}",
            role=self.role,
            integrator=self.integrator,
            key_id=self.id,
            baskets=None if self.baskets is None else frozenset(self.baskets),
            payloads=self.payloads,
            integration=self.integration,
            expires_at=self.expires_at,
            sees_all=self.role is Role.ADMIN,
        )


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """What a new key shall permit; ``expires_in`` is its life."""

    role: Role
    integrator: str
    name: str = ""
    expires_in: timedelta = DEFAULT_LIFE
    baskets: tuple[str, ...] | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] | None = None
    payloads: bool = False
    integration: str | None = None
    owner: str = ""


def issue_key(request: KeyRequest, now: datetime, created_by: str, pepper: bytes) -> tuple[str, ApiKey]:
    """Return a new key as text, which nobody can make again, and its record."""
    text, key_id = new_key()
    salt = secrets.token_bytes(SALT_BYTES)
    key = ApiKey(
        id=key_id,
        key_hash=hash_key(text, salt, pepper),
        salt=salt,
        pepper_id=pepper_id_of(pepper),
        name=request.name,
        owner=request.owner,
        role=request.role,
        integrator=request.integrator,
        created_at=now,
        created_by=created_by,
        expires_at=now + request.expires_in,
        baskets=request.baskets,
        networks=request.networks,
        payloads=request.payloads,
        integration=request.integration,
    )
    return text, key


def issue_successor(key: ApiKey, now: datetime, created_by: str, pepper: bytes) -> tuple[str, ApiKey]:
    """Return a new key that permits what ``key`` does, for as long a life as it was given, and its record."""
    request = KeyRequest(
        role=key.role,
        integrator=key.integrator,
        name=key.name,
        owner=key.owner,
        expires_in=key.expires_at - key.created_at,
        baskets=key.baskets,
        networks=key.networks,
        payloads=key.payloads,
        integration=key.integration,
    )
    return issue_key(request, now, created_by, pepper)
