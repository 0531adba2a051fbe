"""Checks what an agent returned or raised: JSON bytes to record, or the error with which the step fails."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import orjson

from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.catalogue.schema_validator import SchemaFault
from shared.domain.definitions.retry_policy import RETRY_POLICY_LIMITS
from shared.domain.execution import ErrorKind, Execution, RunError, Step
from shared.errors import BucketError
from worker.agent_errors import InvalidInputError, TransientError
from worker.agent_settings import hide_settings

OUTPUT_MAX_BYTES: Final = 4 * 1024 * 1024
OUTPUTS_MAX_BYTES: Final = 32 * 1024 * 1024
NESTING_MAX: Final = 199
POINTER_DEPTH_MAX: Final = 8
MESSAGE_MAX_BYTES: Final = 4096

_NO_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({})
_INT64_RANGE: Final = range(-(2**63), 2**63)
_NETWORK_ERRNOS: Final = frozenset(
    {
        errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH,
        errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET,
    }
)  # fmt: skip
# Paths of two parts or more, not in a URL except file: callers must not see paths of the server.
_SERVER_PATH: Final = re.compile(r"(?:\bfile://|(?<![\w:/.]))(?:/[\w.@+~-]+){2,}/?")


class NotJson(ValueError):
    """A value that is not JSON, or that the stores would refuse."""


def check_output(
    catalogue: AgentCatalogue,
    execution: Execution,
    step: Step,
    returned: Any,
    settings: Mapping[str, str] = _NO_SETTINGS,
) -> bytes | RunError:
    """Return ``returned`` as JSON bytes, or the error of an output that cannot be recorded.

    An error that the agent reports is told without the values of ``settings``.
    """
    try:
        output = to_json(returned)
    except NotJson as error:
        return not_storable_error(step, str(error))
    if len(output) > OUTPUT_MAX_BYTES:
        message = f"the output takes {len(output)} bytes; at most {OUTPUT_MAX_BYTES} are kept"
        return step_error(step, "output_too_large", message)
    if size_error := check_total_size(execution, step, len(output)):
        return size_error
    if "error" in returned:
        return step_error(
            step, "agent_error", f"the agent reported an error: {_safe_text_of(returned['error'], settings)}"
        )
    if faults := catalogue.find_output_faults(step.agent, returned):
        return step_error(step, "output_invalid", f"the output breaks the agent's output_schema: {join_faults(faults)}")
    return output


def check_total_size(execution: Execution, step: Step, output_bytes: int) -> RunError | None:
    """Return the error if this output would exceed the limit for all outputs of a run, else None."""
    if execution.output_bytes + output_bytes <= OUTPUTS_MAX_BYTES:
        return None
    return step_error(step, "output_too_large", f"the run's outputs take over {OUTPUTS_MAX_BYTES} bytes together")


def error_of_exception(step: Step, raised: BaseException, settings: Mapping[str, str] = _NO_SETTINGS) -> RunError:
    """Return the error for an agent's exception, transient if another attempt may succeed.

    Its text is told without the values of ``settings``.

    Transient are network errors, :class:`TransientError`, ConnectionError, TimeoutError, and our own retryable errors.
    """
    is_transient = isinstance(raised, (TransientError, ConnectionError, TimeoutError))
    is_transient |= isinstance(raised, OSError) and raised.errno in _NETWORK_ERRNOS
    is_transient |= isinstance(raised, BucketError) and raised.retryable  # for example of the ledger's store
    kind = ErrorKind.TRANSIENT if is_transient else ErrorKind.PERMANENT
    text = _safe_text_of(raised, settings)
    if isinstance(raised, InvalidInputError):
        return step_error(step, "input_invalid", text)
    message = f"{type(raised).__name__}: {text}" if text else type(raised).__name__
    return step_error(step, "agent_error", message, kind)


def wait_asked_by(raised: BaseException) -> float:
    """Return how many seconds an agent's transient error lets the next attempt wait at least; 0 if it does not say."""
    wait_s = getattr(raised, "wait_s", 0.0) if isinstance(raised, TransientError) else 0.0
    is_number = isinstance(wait_s, int | float) and 0 < wait_s < math.inf
    return min(float(wait_s), RETRY_POLICY_LIMITS["budget_s"][1]) if is_number else 0.0


def join_faults(faults: Sequence[SchemaFault]) -> str:
    """Return the first five faults as a text."""
    return "; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in faults[:5])


def not_storable_error(step: Step, reason: str) -> RunError:
    """Return the error of an output that the store refused."""
    return step_error(step, "output_not_serialisable", f"the output cannot be recorded: {reason}")


def to_json(value: Any) -> bytes:
    """Return the object ``value`` as JSON that every store accepts; raises NotJson with a pointer to the fault."""
    if not isinstance(value, dict):
        raise NotJson(f"an agent must return an object, and this one returned {_type_name_of(value)}")
    _check_json_value(value)
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError) as error:  # lone surrogates, subclasses of the JSON types
        raise NotJson(str(error)) from error


def _check_json_value(root: Any) -> None:
    """Walk ``root`` without recursion: an agent's output may be nested deeply enough to end a recursive walk."""
    pending: list[tuple[Any, int, str]] = [(root, 1, "")]
    while pending:
        value, level, pointer = pending.pop()
        if level > NESTING_MAX:
            raise NotJson(f"it is nested over {NESTING_MAX} levels")
        if isinstance(value, dict):
            for key, child in value.items():
                if not isinstance(key, str):
                    raise NotJson(f"{pointer or '/'} has a key that is no string but {_type_name_of(key)}")
                if "\0" in key:
                    raise NotJson(f"{pointer or '/'} has a key with a NUL in it")
                pending.append((child, level + 1, f"{pointer}/{key[:40]}" if level < POINTER_DEPTH_MAX else pointer))
        elif isinstance(value, (list, tuple)):
            pending += [
                (child, level + 1, f"{pointer}/{index}" if level < POINTER_DEPTH_MAX else pointer)
                for index, child in enumerate(value)
            ]
        else:
            _check_scalar(value, pointer)


def _check_scalar(value: Any, pointer: str) -> None:
    if value is None or isinstance(value, (str, bool)):
        return
    if isinstance(value, int):
        if value not in _INT64_RANGE:
            raise NotJson(f"{pointer} is an integer beyond 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise NotJson(f"{pointer} is {value}, which JSON does not have")
    else:
        raise NotJson(f"{pointer} is {_type_name_of(value)}, which JSON does not have")


def _type_name_of(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def _safe_text_of(value: object, settings: Mapping[str, str]) -> str:
    """Return the text of an exception or an error value, without server paths, at most 4 KiB."""
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001  (an agent's class may raise anything)
        text = f"<its text raises {type(error).__name__}>"
    # Before the cut, which would leave the beginning of a value that is no longer found.
    text = hide_settings(text[: MESSAGE_MAX_BYTES * 2], settings)
    text = _SERVER_PATH.sub("<path>", text)
    return text.encode("utf-8", "replace")[: MESSAGE_MAX_BYTES - 256].decode("utf-8", "ignore")


def step_error(step: Step, code: str, message: str, kind: ErrorKind = ErrorKind.PERMANENT) -> RunError:
    """Return the error of a step's attempt, with at most 4 KiB of ``message``."""
    text = message.encode("utf-8", "replace")[:MESSAGE_MAX_BYTES].decode("utf-8", "ignore")
    return RunError(code, text, kind, step.agent, step.id, step.claims, retryable=kind is ErrorKind.TRANSIENT)
