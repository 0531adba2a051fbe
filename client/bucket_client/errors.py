"""Every error that the client raises on purpose, on one page.

    BucketError
        Invalid             the request is wrong (400, 413, 415 ...); ``details`` has a JSON pointer for each fault
        NotFound            no such run, basket, agent or consumer (404), or it is no longer kept (410)
        Forbidden           the key is missing, wrong or not allowed to do this (401, 403)
        Conflict            the state forbids it (409), or the idempotency key belongs to another request (422)
        Unavailable         no reply, or 502, 503, 504, after all repeats
            Overloaded      too many runs wait for a worker (503)
            RateLimited     too many requests (429)
        ServerFault         a fault of the server (500), or a reply that is none of Bucket's
        Timeout             the time for a wait is up; the run goes on
        ExecutionFailed     the run ended as failed
            ExecutionCancelled
        StateFileError      the state file of a map belongs to other inputs, or to another process

A warning of a reply, such as a key that Bucket ignored, is issued as a :class:`BucketWarning`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bucket_client.effects import Reply
    from bucket_client.execution import Execution

_LOG_LINES_SHOWN: Final = 3


class BucketWarning(UserWarning):
    """A warning in a reply of Bucket: a key was ignored, or the sample input was used.

    ``execution`` is the run that was accepted all the same, for programs that turn warnings into errors.
    """

    execution: Execution | None = None


class BucketError(Exception):
    """Something went wrong; the message says what and what to do.

    ``status`` is that of the reply, None without one. ``error_code``, ``details`` (an object for each fault, with its
    ``message`` and JSON ``pointer``) and ``request_id`` (for the operators) come from the problem document.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error_code: str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.error_code = error_code
        self.details = tuple(details)
        self.request_id = request_id
        self.problem: Mapping[str, Any] = {}
        """The problem document as it came, with its extension members."""
        self.retry_after_s: float | None = None
        self.idempotency_key: str | None = None
        """Of a submit: the same submit with this key makes no second run, whether the first one was stored or not."""
        self.attempts = 1
        """How often the request was sent."""

    @property
    def pointers(self) -> list[str]:
        """Return the JSON pointers of the faults, in the order of ``details``."""
        return [str(detail["pointer"]) for detail in self.details if isinstance(detail, dict) and "pointer" in detail]


class Invalid(BucketError):
    """The request is wrong; a repeat would be refused too."""


class NotFound(BucketError):
    """There is no such run, basket, agent or consumer, or it is no longer kept."""


class Forbidden(BucketError):
    """The key is missing, wrong or not allowed to do this."""


class Conflict(BucketError):
    """The state forbids it, or the idempotency key belongs to another request."""


class Unavailable(BucketError):
    """Bucket did not reply, or cannot serve now, also after all repeats."""


class Overloaded(Unavailable):
    """Too many runs wait for a worker."""


class RateLimited(Unavailable):
    """Too many requests were sent."""


class ServerFault(BucketError):
    """The server failed, or replied with something that is none of Bucket's replies."""


class StateFileError(BucketError):
    """The state file of a map belongs to other inputs, or another process uses it."""


class Timeout(BucketError):
    """The time for a wait is up; the runs go on, and can be waited for again."""

    execution: Execution | None = None
    """The run as it was last seen; None if it was not seen at all."""
    executions: Sequence[Execution] = ()
    """Of a wait for many: the runs that are done."""


class ExecutionFailed(BucketError):
    """The run ended as failed: ``step``, ``agent``, ``error_code`` and ``kind`` say where and why."""

    def __init__(self, execution: Execution) -> None:
        error: Mapping[str, Any] = execution.error or {}
        self.execution = execution
        self.step: str | None = error.get("step")
        self.agent: str | None = error.get("agent")
        self.kind: str | None = error.get("kind")
        self.retryable: bool = bool(error.get("retryable"))
        self.log_lines: list[str] = [str(line["message"]) for line in execution.logs]
        place = f" in step {self.step}" if self.step else ""
        reason = f"{error.get('error_code')}: {error.get('message')}" if error else "without an error"
        last = "".join(f"\n    {message}" for message in self.log_lines[-_LOG_LINES_SHOWN:])
        super().__init__(
            f"{execution.execution_id} {execution.status}{place}: {reason}{last}",
            error_code=error.get("error_code"),
            request_id=execution.request_id,
        )

    def __reduce__(self) -> tuple[type[ExecutionFailed], tuple[Execution]]:
        return type(self), (self.execution,)


class ExecutionCancelled(ExecutionFailed):
    """The run ended as cancelled."""


_BY_CODE: Final[Mapping[str, type[BucketError]]] = {"overloaded": Overloaded}
_BY_STATUS: Final[Mapping[int, type[BucketError]]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    410: NotFound,
    422: Conflict,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
_CLIENT_ERRORS: Final = range(400, 500)


def error_of(reply: Reply) -> BucketError:
    """Return the error for a reply that is no success."""
    error = error_of_problem(_problem_of(reply.body), reply.status)
    error.retry_after_s = reply.retry_after_s
    if error.request_id is None:
        error.request_id = reply.headers.get("x-request-id")
    return error


def error_of_problem(problem: Mapping[str, Any], status: int) -> BucketError:
    """Return the error for a problem document, as a reply of its own or in an item of a batch."""
    default = _BY_STATUS.get(status) or (Invalid if status in _CLIENT_ERRORS else ServerFault)
    kind = _BY_CODE.get(str(problem.get("error_code")), default)
    details = problem.get("details")
    error = kind(
        str(problem.get("detail") or f"the server replied {status} without a problem document"),
        status=status,
        error_code=problem.get("error_code"),
        details=details if isinstance(details, list) else (),
        request_id=problem.get("request_id"),
    )
    error.problem = problem
    return error


def _problem_of(body: bytes) -> Mapping[str, Any]:
    """Return the problem document; a proxy's error page is none, and gives an empty one."""
    try:
        problem = json.loads(body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
