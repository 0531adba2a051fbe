"""The types of a row of the operation table, and the groups of errors that many routes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api.openapi.json_schema import JsonObject
from shared import errors
from shared.errors import BucketError

ErrorTypes = tuple[type[BucketError], ...]


@dataclass(frozen=True, slots=True)
class ResponseSpec:
    """One response that is not an error: the schema of its body (None for no body), its headers and links."""

    description: str
    schema: JsonObject | None = None
    headers: tuple[str, ...] = ()
    media_type: str = "application/json"
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path; every operation also has X-Request-ID both ways and can fail with 400 and 500."""

    responses: Mapping[int, ResponseSpec]
    parameters: tuple[str, ...] = ()
    error_types: ErrorTypes = ()
    body: str | None = None
    is_body_required: bool = True
    is_unversioned: bool = False


STORE_ERRORS: Final[ErrorTypes] = (errors.Unavailable,)
BODY_ERRORS: Final[ErrorTypes] = (
    errors.InvalidJson,
    errors.CallbacksNotSupported,
    errors.CredentialsNotAccepted,
    errors.PayloadTooLarge,
    errors.UnsupportedMediaType,
)
SUBMIT_ERRORS: Final[ErrorTypes] = (
    *BODY_ERRORS,
    errors.IdempotencyKeyReused,
    errors.Unavailable,
    errors.Overloaded,
    errors.OutcomeUnknown,
)


def ok_response(description: str, schema: JsonObject) -> dict[int, ResponseSpec]:
    """Return the responses of an operation whose only success is 200, without headers of its own."""
    return {200: ResponseSpec(description, schema)}
