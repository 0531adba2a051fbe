"""Every error that Bucket raises on purpose, on one page.

BucketError
├── RequestError                 the caller can correct it
│   ├── ValidationFailed         400 validation_failed
│   │   ├── InvalidJson          400 invalid_json
│   │   ├── CallbacksNotSupported 400 callbacks_not_supported
│   │   ├── CredentialsNotAccepted 400 credentials_not_accepted
│   │   ├── UnknownAgent         400 unknown_agent
│   │   └── CursorInvalid        400 cursor_invalid
│   ├── NotFound                 404 not_found
│   │   ├── BasketNotFound       404 basket_not_found
│   │   ├── AgentNotFound        404 agent_not_found
│   │   ├── ExecutionNotFound    404 execution_not_found
│   │   └── ConsumerNotFound     404 consumer_not_found
│   ├── MethodNotAllowed         405 method_not_allowed
│   ├── BasketExists             409 basket_exists
│   ├── NotRetryable             409 not_retryable
│   ├── ExecutionExpired         410 execution_expired
│   ├── CursorExpired            410 cursor_expired
│   ├── PayloadTooLarge          413 payload_too_large
│   ├── UnsupportedMediaType     415 unsupported_media_type
│   └── IdempotencyKeyReused     422 idempotency_key_reused
├── ServiceError                 the caller cannot correct it
│   ├── InternalError            500 internal
│   ├── Unavailable              503 unavailable      the store or the broker is away; nothing was written
│   ├── Overloaded               503 overloaded
│   └── OutcomeUnknown           503 outcome_unknown  the reply to a write was lost
├── StaleWrite                   an optimistic write lost to another writer: load and decide again
├── LeaseLost                    the lease is no longer valid: stop without an error
├── ChangeHistoryLost            the change stream cannot be resumed: the feed starts a new epoch
├── PositionExpired              the feed has deleted changes after a position
├── IllegalTransition            a bug: the table of transitions forbids it
├── NotStorable                  content that the store refuses: too large, or not JSON
├── SpecError                    an agent spec or a basket has faults
└── SettingsError                the environment variables have faults

A class carries ``error_code``, ``http_status`` and ``retryable``; its docstring's first line is the default message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class BucketError(Exception):
    """Something went wrong in Bucket."""

    error_code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Sequence[Mapping[str, Any]] = (),
        retry_after_s: int | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip().partition("\n")[0]
        self.details = tuple(dict(detail) for detail in details)
        self.retry_after_s = retry_after_s
        super().__init__(self.message)

    @property
    def extension_members(self) -> Mapping[str, Any]:
        """The extension members (RFC 9457) of the problem document, beside the members that every problem has."""
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.details, self.retry_after_s)


def _rebuild(
    kind: type[BucketError], message: str, details: Sequence[Mapping[str, Any]], retry_after_s: int | None
) -> BucketError:
    return kind(message, details=details, retry_after_s=retry_after_s)


class RequestError(BucketError):
    """The request cannot be served as it stands."""

    error_code, http_status = "validation_failed", 400


class ValidationFailed(RequestError):
    """The request is not valid; ``details`` names each fault and where it is."""


class InvalidJson(ValidationFailed):
    """The body is not valid JSON."""

    error_code = "invalid_json"


class CallbacksNotSupported(ValidationFailed):
    """Bucket never calls back; leave the field out and poll status_url instead."""

    error_code = "callbacks_not_supported"


class CredentialsNotAccepted(ValidationFailed):
    """Credentials must not be sent in a body; configure them where the agent runs."""

    error_code = "credentials_not_accepted"


class UnknownAgent(ValidationFailed):
    """The basket names an agent that is not there."""

    error_code = "unknown_agent"


class CursorInvalid(ValidationFailed):
    """The cursor was not made by Bucket; pass one back as it was given, or leave it out."""

    error_code = "cursor_invalid"


class NotFound(RequestError):
    """There is nothing at this address."""

    error_code, http_status = "not_found", 404


class BasketNotFound(NotFound):
    """The basket was not found."""

    error_code = "basket_not_found"


class AgentNotFound(NotFound):
    """The agent was not found."""

    error_code = "agent_not_found"


class ExecutionNotFound(NotFound):
    """The execution was not found."""

    error_code = "execution_not_found"


class ConsumerNotFound(NotFound):
    """The consumer was not found."""

    error_code = "consumer_not_found"


class MethodNotAllowed(RequestError):
    """This address does not take this method; see the Allow header."""

    error_code, http_status = "method_not_allowed", 405


class BasketExists(RequestError):
    """A basket of this name exists already."""

    error_code, http_status = "basket_exists", 409


class NotRetryable(RequestError):
    """The execution cannot be retried as it stands."""

    error_code, http_status = "not_retryable", 409


class ExecutionExpired(RequestError):
    """The execution is older than the retention and is gone."""

    error_code, http_status = "execution_expired", 410


class CursorExpired(RequestError):
    """The cursor is older than the feed; catch up as resync says, then go on from its since."""

    error_code, http_status = "cursor_expired", 410

    def __init__(self, message: str | None = None, *, resync: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.resync = resync
        """``list``: the address of the list to read; ``since``: the cursor with which to go on afterwards."""

    @property
    def extension_members(self) -> Mapping[str, Any]:
        """The member ``resync``: how to catch up."""
        return {} if self.resync is None else {"resync": dict(self.resync)}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_expired, (self.message, self.resync)


def _rebuild_expired(message: str, resync: Mapping[str, str] | None) -> CursorExpired:
    return CursorExpired(message, resync=resync)


class PayloadTooLarge(RequestError):
    """The body is larger than 1 MiB."""

    error_code, http_status = "payload_too_large", 413


class UnsupportedMediaType(RequestError):
    """The body must be JSON; send Content-Type: application/json."""

    error_code, http_status = "unsupported_media_type", 415


class IdempotencyKeyReused(RequestError):
    """This Idempotency-Key was used with another body; take a new key for a new request."""

    error_code, http_status = "idempotency_key_reused", 422


class ServiceError(BucketError):
    """Bucket cannot serve the request."""


class InternalError(ServiceError):
    """Something went wrong inside Bucket; it has been logged under this request_id."""


class Unavailable(ServiceError):
    """A store that Bucket needs is away; nothing was stored, send the same request again."""

    error_code, http_status, retryable = "unavailable", 503, True


class Overloaded(Unavailable):
    """Too much work is waiting; nothing was stored, send the same request again later."""

    error_code = "overloaded"


class OutcomeUnknown(ServiceError):
    """The answer of the store was lost; with an Idempotency-Key, send the same request again."""

    error_code, http_status, retryable = "outcome_unknown", 503, True


class StaleWrite(BucketError):
    """Another writer was first; load the execution and decide again."""


class LeaseLost(BucketError):
    """The lease is no longer valid: the step has moved on, and this worker's claim no longer counts."""


class ChangeHistoryLost(BucketError):
    """The store no longer has the changes since the feed's last batch; the feed starts a new epoch."""


class PositionExpired(BucketError):
    """The feed no longer has the changes after this position; a client gets CursorExpired, with a way to catch up."""


class IllegalTransition(BucketError):
    """The table of transitions forbids this."""


class NotStorable(BucketError):
    """The content cannot be stored."""


class SpecError(BucketError):
    """An agent spec or a basket has faults."""


class SettingsError(BucketError):
    """The settings are wrong."""
