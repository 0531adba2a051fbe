"""One operation of the contract: its parameters and body, its responses, and the errors that it may return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.openapi.json_schema import JsonObject
from shared import errors

ErrorTypes = tuple[type[errors.BucketError], ...]


@dataclass(frozen=True, slots=True)
class ResponseSpec:
    """One response: the schema of its body (None for no body), its headers and links, the codes of an error."""

    description: str
    schema: JsonObject | None = None
    headers: tuple[str, ...] = ()
    media_types: tuple[str, ...] = ("application/json",)
    links: tuple[str, ...] = ()
    error_codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path; every operation also has X-Request-ID both ways and can fail with 400 and 500."""

    responses: Mapping[int, ResponseSpec]
    parameters: tuple[str, ...] = ()
    error_types: ErrorTypes = ()
    body: str | None = None
    is_body_required: bool = True
    is_unversioned: bool = False


def ok(description: str, schema: JsonObject, *headers: str, **more: Any) -> dict[int, ResponseSpec]:
    """Return the responses of an operation whose only success is 200."""
    return {200: ResponseSpec(description, schema, headers, **more)}


STORE_ERRORS: Final[ErrorTypes] = (errors.Unavailable,)
WRITE_ERRORS: Final[ErrorTypes] = (errors.Unavailable, errors.OutcomeUnknown)
PAGE_ERRORS: Final[ErrorTypes] = (errors.CursorInvalid, errors.Unavailable, errors.EncryptionKeyMissing)
BODY_ERRORS: Final[ErrorTypes] = (
    errors.RequestTimeout,
    errors.InvalidJson,
    errors.CallbacksNotSupported,
    errors.CredentialsNotAccepted,
    errors.PayloadTooLarge,
    errors.UnsupportedMediaType,
)
SUBMIT_ERRORS: Final[ErrorTypes] = (
    *BODY_ERRORS,
    errors.IntegrationInactive,
    errors.IdempotencyKeyReused,
    errors.Unavailable,
    errors.Overloaded,
    errors.OutcomeUnknown,
)
RUN_ERRORS: Final[ErrorTypes] = (*SUBMIT_ERRORS, errors.AgentUnavailable, errors.EncryptionKeyMissing)
# NotFound with each: a name or an id with an encoded slash in it is another path.
EXECUTION_ERRORS: Final[ErrorTypes] = (
    errors.NotFound,
    errors.ExecutionNotFound,
    errors.ExecutionExpired,
    errors.EncryptionKeyMissing,
)
CONSUMER_ERRORS: Final[ErrorTypes] = (errors.NotFound, errors.ConsumerNotFound)
BASKET_ERRORS: Final[ErrorTypes] = (errors.NotFound, errors.BasketNotFound)
AGENT_ERRORS: Final[ErrorTypes] = (errors.NotFound, errors.AgentNotFound)
PRIVATE: Final = ("Cache-Private", "Vary")
