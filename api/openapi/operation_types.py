"""What one row of the contract's table says of a route, and what many routes refuse alike."""

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
    """One status that is no error: its body's form (None for no body) and the headers it bears."""

    description: str
    schema: JsonObject | None = None
    headers: tuple[str, ...] = ()
    media_type: str = "application/json"
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path; every operation also bears X-Request-ID both ways and can fail with 400 and 500."""

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


def ok_response(description: str, form: JsonObject) -> dict[int, ResponseSpec]:
    """Answer the replies of an operation that answers 200 alone, with no headers of its own."""
    return {200: ResponseSpec(description, form)}
