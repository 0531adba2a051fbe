"""JSON schemas of responses about keys and the caller itself."""

from __future__ import annotations

from typing import Final

from api.audit.audited_routes import ACTIONS
from api.openapi.json_schema import (
    BOOLEAN,
    POSITIVE,
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
from api.openapi.response_schemas import WARNINGS
from shared.domain.access.audit_event import Outcome
from shared.domain.access.caller import Role
from shared.domain.access.integration import (
    HISTORY_MAX,
    INTEGRATION_ID_PATTERN,
    IntegrationAction,
    IntegrationStatus,
)
from shared.domain.access.integration_checklists import CHECKLIST_ITEMS, Checklist
from shared.domain.access.key_format import KEY_ID_PATTERN

KEY_ID: Final = matching(KEY_ID_PATTERN)
INTEGRATION_ID: Final = matching(INTEGRATION_ID_PATTERN)
VOLUME: Final[JsonObject] = {
    "description": "runs a day, or a text or an object that says more",
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "minLength": 1},
        {"type": "object", "additionalProperties": True, "minProperties": 1},
    ],
}
_ROLE: Final = enum_of(*Role)
_PERCENTAGE: Final[JsonObject] = {"type": "integer", "minimum": 0, "maximum": 100}
_TRUE: Final[JsonObject] = {"type": "boolean", "enum": [True]}
_RECORD: Final[dict[str, JsonObject]] = {
    "id": described(KEY_ID, "no secret: it stands in the key, in logs and in the audit"),
    "name": STRING,
    "owner": described(STRING, "who answers for it: a person or a team"),
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
_DEFINITION: Final[JsonObject] = {"type": "object", "additionalProperties": True}
_REPLACED: Final = object_of("", id=KEY_ID, expires_at=TIMESTAMP)
_INTEGRATION_STATUS: Final = enum_of(*IntegrationStatus)
_MOVE: Final = object_of(
    "One move of an integration; the first is its request.",
    action=enum_of(*IntegrationAction),
    before=nullable(_INTEGRATION_STATUS),
    after=_INTEGRATION_STATUS,
    by=STRING,
    at=TIMESTAMP,
    comment=nullable(STRING),
)
_INTEGRATION: Final[dict[str, JsonObject]] = {
    "id": INTEGRATION_ID,
    "name": described(STRING, "the integrator of its keys"),
    "status": _INTEGRATION_STATUS,
    "percentage": described(_PERCENTAGE, "of the items of its checklists; 100 only if all are done"),
    "use_case": STRING,
    "data_flow": STRING,
    "agents": array_of(STRING),
    "baskets": array_of(STRING),
    "volume": VOLUME,
    "contact": STRING,
    "mapping_url": nullable(STRING),
    "key_id": described(nullable(KEY_ID), "the key that its first activation issued"),
    "updated_at": TIMESTAMP,
    "history": described(array_of(ref("IntegrationMove")), f"the newest {HISTORY_MAX}; lists leave it out"),
}
_CHECKED_ITEM: Final = object_of(
    "An item of a checklist, and who said last whether it is done.",
    id=enum_of(*CHECKLIST_ITEMS),
    checklist=enum_of(*Checklist),
    text=STRING,
    done=BOOLEAN,
    by=nullable(STRING),
    at=nullable(TIMESTAMP),
)

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
        ("replaces", "warnings"),
        **_RECORD,
        key=described(STRING, "the key itself: shown once, here"),
        replaces=described(_REPLACED, "after a rotation: the old key, and how long it stays valid"),
        warnings=described(WARNINGS, "baskets that do not exist yet, or are misspelt"),
    ),
    "IntegrationMove": _MOVE,
    "Integration": object_of("A registered integration.", ("history",), **_INTEGRATION),
    "IntegrationActivated": object_of(
        "An active integration; the first activation issues its key.",
        ("key", "key_expires_at"),
        **_INTEGRATION,
        key=described(STRING, "the key itself: shown once, here"),
        key_expires_at=TIMESTAMP,
    ),
    "IntegrationPage": object_of("", integrations=array_of(ref("Integration")), next_cursor=nullable(STRING)),
    "CheckedItem": _CHECKED_ITEM,
    "Compliance": object_of("", percentage=_PERCENTAGE, items=array_of(ref("CheckedItem"))),
    "AuditPage": object_of(
        "",
        events=array_of(ref("AuditEvent")),
        next_since=described(STRING, "where to go on, also if there is nothing new; it never expires"),
    ),
    "AuditEvent": object_of(
        "Who did what.",
        ("error_code", "repeated", "before", "after"),
        seq=described(POSITIVE, "its number; none is left out, also those of other integrators have theirs"),
        at=TIMESTAMP,
        subject=described(STRING, "the key or the subject of the token; anonymous if no credentials were accepted"),
        key_id=nullable(KEY_ID),
        integrator=described(nullable(STRING), "whose it is; null if nobody knows, and then only an admin sees it"),
        address=nullable(STRING),
        action=described(enum_of(*ACTIONS), "entity.verb"),
        object=described(nullable(STRING), "the id or name of what was acted on; of a refused right, the operation"),
        outcome=enum_of(*Outcome),
        request_id=nullable(STRING),
        error_code=described(STRING, "of one that is not ok"),
        repeated=described(POSITIVE, "how many more of its kind were only counted, until its minute ended"),
        before=described(_DEFINITION, "the definition before"),
        after=described(_DEFINITION, "the definition after; of a retry, the new execution_id"),
    ),
    "KeyRevoked": object_of("", success=_TRUE, message=STRING, key=ref("KeyRecord")),
}
