"""Every error that Bucket raises on purpose, on one page.

A class names its ``error_code``, its ``http_status`` and whether the request is ``retryable``, or inherits them; the
first line of its docstring is the default message. A RequestError is one that the caller can correct, a ServiceError
one that it cannot; the last ones are for the engine itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar


class BucketError(Exception):
    """Something went wrong in Bucket."""

    error_code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    extension_members: Mapping[str, Any] = {}
    """The extension members (RFC 9457) of the problem document, beside the members that every problem has."""
    response_headers: Mapping[str, str] = {}
    """Headers that the response has because of this error."""

    def __init_subclass__(
        cls, *, error_code: str | None = None, http_status: int | None = None, retryable: bool = False
    ) -> None:
        super().__init_subclass__()
        cls.error_code = error_code or cls.error_code
        cls.http_status = http_status or cls.http_status
        cls.retryable = retryable or cls.retryable

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
    def is_internal(self) -> bool:
        """Whether no client can correct the fault: it gets ``internal`` in its place, without details."""
        is_server_error = self.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return is_server_error and not self.retryable and not isinstance(self, RequestError)


class RequestError(BucketError, error_code="validation_failed", http_status=400):
    """The request cannot be served as it stands."""


class ValidationFailed(RequestError):
    """The request is not valid; ``details`` names each fault and where it is."""


class InvalidJson(ValidationFailed, error_code="invalid_json"):
    """The body is not valid JSON."""


class CallbacksNotSupported(ValidationFailed, error_code="callbacks_not_supported"):
    """Bucket never calls back; leave the field out and poll status_url instead."""


class CredentialsNotAccepted(ValidationFailed, error_code="credentials_not_accepted"):
    """Credentials must not be sent in a body; configure them where the agent runs."""


class UnknownAgent(ValidationFailed, error_code="unknown_agent"):
    """The basket names an agent that is not there."""


class CursorInvalid(ValidationFailed, error_code="cursor_invalid"):
    """The cursor was not made by Bucket; pass one back as it was given, or leave it out."""


class Unauthenticated(RequestError, error_code="unauthenticated", http_status=401):
    """This request needs a key: send Authorization: Bearer <key>, with a key that an admin of Bucket has made."""

    def __init__(self, message: str | None = None) -> None:
        """A ``message`` means that credentials came and were refused."""
        super().__init__(message)
        challenge = 'Bearer realm="bucket"' if message is None else 'Bearer realm="bucket", error="invalid_token"'
        self.response_headers = {"WWW-Authenticate": challenge}  # RFC 6750


class Forbidden(RequestError, error_code="forbidden", http_status=403):
    """The key is valid, but what this request does is not permitted to it."""


class IntegrationInactive(RequestError, error_code="integration_inactive", http_status=403):
    """Only the keys of an active integration may start runs here; an admin of Bucket can activate it."""


class NotFound(RequestError, error_code="not_found", http_status=404):
    """There is nothing at this address."""


class BasketNotFound(NotFound, error_code="basket_not_found"):
    """The basket was not found."""


class AgentNotFound(NotFound, error_code="agent_not_found"):
    """The agent was not found."""


class ExecutionNotFound(NotFound, error_code="execution_not_found"):
    """The execution was not found."""


class ConsumerNotFound(NotFound, error_code="consumer_not_found"):
    """The consumer was not found."""


class KeyNotFound(NotFound, error_code="key_not_found"):
    """The key was not found."""


class IntegrationNotFound(NotFound, error_code="integration_not_found"):
    """The integration was not found."""


class MethodNotAllowed(RequestError, error_code="method_not_allowed", http_status=405):
    """This address does not take this method; see the Allow header."""


class RequestTimeout(RequestError, error_code="request_timeout", http_status=408, retryable=True):
    """The request did not come whole in time: its headers within 10 s, all of it within 60 s; nothing was stored."""


class UriTooLong(RequestError, error_code="uri_too_long", http_status=414):
    """The address is too long."""


class HeadersTooLarge(RequestError, error_code="headers_too_large", http_status=431):
    """The headers are too large."""


class NotImplementedHere(RequestError, error_code="not_implemented", http_status=501):
    """The request is encoded in a way that is not implemented here."""


class KeyNotValid(RequestError, error_code="key_not_valid", http_status=409):
    """The key has ended: it was revoked or replaced before; make a new one."""


class IntegrationExists(RequestError, error_code="integration_exists", http_status=409):
    """An integration of this name exists already."""


class IllegalMove(RequestError, error_code="integration_state", http_status=409):
    """The status of the integration does not allow this yet, or not any more."""


class IntegrationIncomplete(RequestError, error_code="integration_incomplete", http_status=409):
    """Items of the integration's checklists are open."""


class BasketExists(RequestError, error_code="basket_exists", http_status=409):
    """A basket of this name exists already."""


class NotRetryable(RequestError, error_code="not_retryable", http_status=409):
    """The execution cannot be retried as it stands."""


class AlreadyRequeued(NotRetryable, error_code="already_requeued"):
    """The dead letter was requeued before."""

    def __init__(self, message: str | None = None, *, requeued_as: str | None = None) -> None:
        super().__init__(message or f"this dead letter was requeued before, as {requeued_as}: poll that run")
        self.extension_members = {} if requeued_as is None else {"requeued_as": requeued_as}


class NotFinal(RequestError, error_code="not_final", http_status=409):
    """The execution is not done: cancel it first, or wait until it is."""


class ExecutionFailed(RequestError, error_code="execution_failed", http_status=409):
    """The execution failed: it has no result, and never will."""

    def __init__(self, message: str | None = None, *, error: Mapping[str, Any] | None = None) -> None:
        """``error`` is the error of the execution, as its polls show it."""
        super().__init__(message)
        if error is not None:
            self.extension_members = {"error": error}


class ExecutionCancelled(ExecutionFailed, error_code="execution_cancelled"):
    """The execution was cancelled: it has no result, and never will."""


class ExecutionExpired(RequestError, error_code="execution_expired", http_status=410):
    """The execution is older than the retention and is gone."""


class ExecutionErased(RequestError, error_code="execution_erased", http_status=410):
    """The content of the execution was erased: it has no result and no outputs any more."""


class CursorExpired(RequestError, error_code="cursor_expired", http_status=410):
    """The cursor is older or newer than the feed; catch up as resync says, then go on from its since."""

    def __init__(self, message: str | None = None, *, resync: Mapping[str, str] | None = None) -> None:
        """``resync`` has ``list``, the address of the list to read, and ``since``, the cursor to go on with then."""
        super().__init__(message)
        if resync is not None:
            self.extension_members = {"resync": resync}


class PayloadTooLarge(RequestError, error_code="payload_too_large", http_status=413):
    """The body is larger than 1 MiB."""


class UnsupportedMediaType(RequestError, error_code="unsupported_media_type", http_status=415):
    """The body must be JSON; send Content-Type: application/json."""


class IdempotencyKeyReused(RequestError, error_code="idempotency_key_reused", http_status=422):
    """This Idempotency-Key was used with another body; take a new key for a new request."""

    def __init__(self, message: str | None = None, *, used_by: str | None = None) -> None:
        """``used_by`` is the id of the run that holds the key."""
        super().__init__(message)
        if used_by is not None:
            # Not "execution_id": a program that looks only for that would take the refusal for a submit.
            self.extension_members = {"used_by": used_by}


class RateLimited(RequestError, error_code="rate_limited", http_status=429, retryable=True):
    """Too many requests of one kind came with this key; nothing was done, send the same again after Retry-After."""


class QuotaExceeded(RequestError, error_code="quota_exceeded", http_status=429, retryable=True):
    """The integrator has as much as its quota permits; nothing was stored."""

    def __init__(self, message: str | None = None, *, retry_after_s: int | None = None, **members: Any) -> None:
        """``members`` are which ``quota``, its value as ``limit``, and what is ``used`` now."""
        super().__init__(message, retry_after_s=retry_after_s)
        self.extension_members = members


class ServiceError(BucketError):
    """Bucket cannot serve the request."""


class InternalError(ServiceError):
    """Something went wrong inside Bucket; it has been logged under this request_id."""


class Unavailable(ServiceError, error_code="unavailable", http_status=503, retryable=True):
    """A store that Bucket needs is away; nothing was stored, send the same request again."""


class Overloaded(Unavailable, error_code="overloaded"):
    """Too much work is waiting; nothing was stored, send the same request again later."""


class AgentUnavailable(ServiceError, error_code="agent_unavailable", http_status=503, retryable=True):
    """An agent that this request needs is unavailable; nothing was stored, send the same request again later."""


class EncryptionKeyMissing(ServiceError, error_code="encryption_key_missing", http_status=503, retryable=True):
    """The content is sealed by an encryption key that this server does not have; an operator must add it again."""


class OutcomeUnknown(ServiceError, error_code="outcome_unknown", http_status=503, retryable=True):
    """The answer of the store was lost; with an Idempotency-Key, send the same request again."""


class SealBroken(BucketError):
    """A sealed value was changed, or was sealed for another place."""


class StaleWrite(BucketError):
    """Another writer was first; load the execution and decide again."""


class LeaseLost(BucketError):
    """The lease is no longer valid: the step has moved on, and this worker's claim no longer counts."""


class IllegalTransition(BucketError):
    """The table of transitions forbids this."""


class NotStorable(BucketError):
    """The content cannot be stored."""


class SpecError(BucketError):
    """An agent spec or a basket has faults."""


class SettingsError(BucketError):
    """The settings are wrong."""
