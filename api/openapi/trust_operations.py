"""The rows of the operation table for keys and the caller itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from api.openapi.json_schema import ref
from api.openapi.operation import (
    BODY_ERRORS,
    PAGE_ERRORS,
    PRIVATE,
    STORE_ERRORS,
    WRITE_ERRORS,
    Operation,
    ResponseSpec,
    ok,
)
from shared import errors

_KEY_ERRORS: Final = (errors.NotFound, errors.KeyNotFound)

TRUST_OPERATIONS: Final[Mapping[str, Operation]] = {
    "GET /me": Operation(ok("Who calls.", ref("Me"), *PRIVATE), (), STORE_ERRORS),
    "GET /audit": Operation(
        ok("The events after the cursor, oldest first.", ref("AuditPage"), *PRIVATE),
        ("AuditSince", "AuditAction", "AuditSubject", "Limit"),
        (*PAGE_ERRORS, errors.OutcomeUnknown),
    ),
    "GET /keys": Operation(ok("One page of keys.", ref("KeyPage"), *PRIVATE), ("Limit", "Cursor"), PAGE_ERRORS),
    "POST /keys": Operation(
        {201: ResponseSpec("The key, which no other reply shows.", ref("NewKeyMade"), ("Cache-None",))},
        (),
        (*BODY_ERRORS, *WRITE_ERRORS),
        "NewKey",
    ),
    "GET /keys/{key_id}": Operation(
        ok("The key's record.", ref("KeyRecord"), *PRIVATE), ("KeyId",), (*_KEY_ERRORS, *STORE_ERRORS)
    ),
    "POST /keys/{key_id}/rotate": Operation(
        {201: ResponseSpec("The new key, which no other reply shows.", ref("NewKeyMade"), ("Cache-None",))},
        ("KeyId",),
        (*BODY_ERRORS, *_KEY_ERRORS, errors.KeyNotValid, *WRITE_ERRORS),
        "Rotation",
        is_body_required=False,
    ),
    "DELETE /keys/{key_id}": Operation(
        ok("Revoked.", ref("KeyRevoked"), "Cache-None"), ("KeyId",), (*_KEY_ERRORS, *WRITE_ERRORS)
    ),
}
