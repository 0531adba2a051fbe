"""The rows of the operation table for keys and the caller itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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

_INTEGRATION_ERRORS: Final = (errors.NotFound, errors.IntegrationNotFound)


def _integration_move(schema: str = "Integration", *more_errors: type[errors.BucketError]) -> Operation:
    return Operation(
        ok("The integration after its move.", ref(schema), "Cache-None"),
        ("IntegrationId",),
        (*BODY_ERRORS, *_INTEGRATION_ERRORS, errors.IllegalMove, *more_errors, *WRITE_ERRORS),
        "MoveComment",
        is_body_required=False,
    )


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
    "GET /integrations": Operation(
        ok("One page of integrations, without their histories.", ref("IntegrationPage"), *PRIVATE),
        ("Limit", "Cursor", "IntegrationStatuses"),
        PAGE_ERRORS,
    ),
    "POST /integrations": Operation(
        {201: ResponseSpec("Registered.", ref("Integration"), ("Cache-None",))},
        (),
        (*BODY_ERRORS, errors.IntegrationExists, *WRITE_ERRORS),
        "NewIntegration",
    ),
    "GET /integrations/{integration_id}": Operation(
        ok("The integration.", ref("Integration"), *PRIVATE), ("IntegrationId",), (*_INTEGRATION_ERRORS, *STORE_ERRORS)
    ),
    "PUT /integrations/{integration_id}": Operation(
        ok("The integration as it is now.", ref("Integration"), "Cache-None"),
        ("IntegrationId",),
        (*BODY_ERRORS, *_INTEGRATION_ERRORS, errors.IntegrationExists, errors.IllegalMove, *WRITE_ERRORS),
        "NewIntegration",
    ),
    "POST /integrations/{integration_id}/review": _integration_move(),
    "POST /integrations/{integration_id}/approve": _integration_move(),
    "POST /integrations/{integration_id}/request-changes": replace(
        _integration_move(), body="Reason", is_body_required=True
    ),
    "POST /integrations/{integration_id}/activate": _integration_move(
        "IntegrationActivated", errors.IntegrationIncomplete
    ),
    "POST /integrations/{integration_id}/suspend": _integration_move(),
    "PUT /integrations/{integration_id}/checklist": Operation(
        ok("How far the checklists are now.", ref("Compliance"), "Cache-None"),
        ("IntegrationId",),
        (*BODY_ERRORS, *_INTEGRATION_ERRORS, *WRITE_ERRORS),
        "Ticks",
    ),
    "GET /integrations/{integration_id}/compliance": Operation(
        ok("How far the checklists are.", ref("Compliance"), *PRIVATE),
        ("IntegrationId",),
        (*_INTEGRATION_ERRORS, *STORE_ERRORS),
    ),
}
