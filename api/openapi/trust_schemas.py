"""JSON schemas of responses about keys and the caller itself."""

from __future__ import annotations

from typing import Final

from api.openapi.json_schema import (
    BOOLEAN,
    STRING,
    TIMESTAMP,
    JsonObject,
    array_of,
    described,
    enum_of,
    matching,
    nullable,
    object_of,
    ref,
)
from shared.domain.access.caller import Role
from shared.domain.access.key_format import KEY_ID_PATTERN

KEY_ID: Final = matching(KEY_ID_PATTERN)
_ROLE: Final = enum_of(*Role)
_TRUE: Final[JsonObject] = {"type": "boolean", "enum": [True]}
_RECORD: Final[dict[str, JsonObject]] = {
    "id": described(KEY_ID, "no secret: it stands in the key, in logs and in the audit"),
    "name": STRING,
    "role": _ROLE,
    "integrator": STRING,
    "status": enum_of("active", "expired", "revoked"),
    "created_at": TIMESTAMP,
    "created_by": STRING,
    "expires_at": TIMESTAMP,
    "last_used_at": described(nullable(TIMESTAMP), "to the minute"),
    "revoked_at": nullable(TIMESTAMP),
    "replaced_by": described(nullable(KEY_ID), "the key that a rotation made"),
    "baskets": described(nullable(array_of(STRING)), "the only ones that it may run; null for all"),
    "networks": described(nullable(array_of(STRING)), "the only ones that it is valid from; null for all"),
    "payloads": described(BOOLEAN, "a reader's key: whether it sees inputs, outputs and logs"),
    "integration": described(nullable(STRING), "the registered integration that it belongs to"),
}
_REPLACED: Final = object_of("", id=KEY_ID, expires_at=TIMESTAMP)

TRUST_SCHEMAS: Final[dict[str, JsonObject]] = {
    "Me": object_of(
        "Who calls.",
        key_id=nullable(KEY_ID),
        subject=STRING,
        role=_ROLE,
        integrator=STRING,
        baskets=nullable(array_of(STRING)),
        payloads=BOOLEAN,
        expires_at=nullable(TIMESTAMP),
    ),
    "KeyRecord": object_of("A key, without the key itself.", **_RECORD),
    "KeyPage": object_of("", keys=array_of(ref("KeyRecord")), next_cursor=nullable(STRING)),
    "NewKeyMade": object_of(
        "A new key.",
        ("replaces",),
        **_RECORD,
        key=described(STRING, "the key itself: shown once, here"),
        replaces=described(_REPLACED, "after a rotation: the old key, and how long it stays valid"),
    ),
    "KeyRevoked": object_of("", success=_TRUE, message=STRING, key=ref("KeyRecord")),
}
