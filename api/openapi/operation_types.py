"""What one row of the contract's table says of a route, and what many routes refuse alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api.openapi.json_schema import Json
from shared import errors
from shared.errors import BucketError

Refusals = tuple[type[BucketError], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One status that is no error: its body's form (None for no body) and the headers it bears."""

    description: str
    form: Json | None = None
    headers: tuple[str, ...] = ()
    media_type: str = "application/json"
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path; every operation also bears X-Request-ID both ways and can fail with 400 and 500."""

    replies: Mapping[int, Reply]
    parameters: tuple[str, ...] = ()
    refusals: Refusals = ()
    body: str | None = None
    body_required: bool = True
    at_root_alone: bool = False


STORED: Final[Refusals] = (errors.Unavailable,)
BODY: Final[Refusals] = (
    errors.InvalidJson,
    errors.CallbacksNotSupported,
    errors.CredentialsNotAccepted,
    errors.PayloadTooLarge,
    errors.UnsupportedMediaType,
)
ACCEPTING: Final[Refusals] = (
    *BODY,
    errors.IdempotencyKeyReused,
    errors.Unavailable,
    errors.Overloaded,
    errors.OutcomeUnknown,
)


def plain(description: str, form: Json) -> dict[int, Reply]:
    """Answer the replies of an operation that answers 200 alone, with no headers of its own."""
    return {200: Reply(description, form)}
