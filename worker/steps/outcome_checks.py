"""Judges what an agent returned or raised: JSON bytes to record, or why the step failed. Nothing gets past it."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import orjson

from shared.catalogue.schema_validator import SchemaFault
from shared.domain.execution import ErrorKind, Execution, RunError, Step
from shared.errors import BucketError
from worker.agent_errors import TransientError

OUTPUT_MAX_BYTES: Final = 4 * 1024 * 1024
OUTPUTS_MAX_BYTES: Final = 32 * 1024 * 1024
NESTING_MAX: Final = 199
POINTER_DEPTH_MAX: Final = 8
MESSAGE_MAX_BYTES: Final = 4096

_INT64_RANGE: Final = range(-(2**63), 2**63)
_NETWORK_ERRNOS: Final = frozenset(
    {
        errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH,
        errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET,
    }
)  # fmt: skip
# Two parts or more, behind no scheme but file: a server's path is nobody's business outside.
_SERVER_PATH: Final = re.compile(r"(?:\bfile://|(?<![\w:/.]))(?:/[\w.@+~-]+){2,}/?")


class NotJson(ValueError):
    """A value that no JSON text stands for, or that the stores would not take."""


def check_output(
    execution: Execution, step: Step, returned: Any, schema_faults_of: Callable[[Any], Iterable[SchemaFault]]
) -> bytes | RunError:
    """Answer what ``returned`` is recorded as; ``faults_of`` is the agent's output schema, asked last of all."""
    try:
        output = to_json(returned)
    except NotJson as wrong:
        return not_storable_error(step, str(wrong))
    if len(output) > OUTPUT_MAX_BYTES:
        return _run_error_of(
            step, "output_too_large", f"the output takes {len(output)} bytes; at most {OUTPUT_MAX_BYTES} are kept"
        )
    too_much = check_total_size(execution, step, len(output))
    if too_much is not None:
        return too_much
    if "error" in returned:
        return _run_error_of(step, "agent_error", f"the agent reported an error: {_safe_text_of(returned['error'])}")
    broken = list(schema_faults_of(returned))
    if broken:
        told = "; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in broken[:5])
        return _run_error_of(step, "output_invalid", f"the output breaks the agent's output_schema: {told}")
    return output


def check_total_size(execution: Execution, step: Step, output_bytes: int) -> RunError | None:
    """Answer the failure of an output that a run's outputs leave no room for."""
    if execution.output_bytes + output_bytes <= OUTPUTS_MAX_BYTES:
        return None
    return _run_error_of(step, "output_too_large", f"the run's outputs take over {OUTPUTS_MAX_BYTES} bytes together")


def error_of_exception(step: Step, raised: BaseException) -> RunError:
    """Answer the failure that an agent's exception stands for; transient ones may succeed another time."""
    network = isinstance(raised, OSError) and raised.errno in _NETWORK_ERRNOS
    away = isinstance(raised, BucketError) and raised.retryable  # the ledger's store, for one
    transient = network or away or isinstance(raised, (TransientError, ConnectionError, TimeoutError))
    kind = ErrorKind.TRANSIENT if transient else ErrorKind.PERMANENT
    told = _safe_text_of(raised)
    message = f"{type(raised).__name__}: {told}" if told else type(raised).__name__
    return _run_error_of(step, "agent_error", message, kind)


def check_input(step: Step, faults: Iterable[SchemaFault]) -> RunError | None:
    """Answer the failure where what a step was given breaks its agent's input schema."""
    broken = list(faults)
    if not broken:
        return None
    told = "; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in broken[:5])
    return _run_error_of(step, "input_invalid", f"the input breaks the agent's input_schema: {told}")


def not_storable_error(step: Step, reason: str) -> RunError:
    """Answer the failure of an output that the store itself refused."""
    return _run_error_of(step, "output_not_serialisable", f"the output cannot be recorded: {reason}")


def missing_input_error(step: Step, reason: str) -> RunError:
    """Answer the failure of a step whose input names a place that the data does not have."""
    return _run_error_of(step, "input_invalid", f"the input of {step.id} cannot be made: {reason}")


def to_json(value: Any) -> bytes:
    """Answer the object ``value`` as JSON that every store takes; raises NotJson with the place of what is not."""
    if not isinstance(value, dict):
        raise NotJson(f"an agent must return an object, and this one returned {_type_name_of(value)}")
    _check_json_value(value)
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError) as wrong:  # lone surrogates, subclasses that are something else
        raise NotJson(str(wrong)) from wrong


def _check_json_value(root: Any) -> None:
    """Walk ``root`` without recursion: an agent's output may be deep enough to end the walker."""
    waiting: list[tuple[Any, int, str]] = [(root, 1, "")]
    while waiting:
        value, level, at = waiting.pop()
        if level > NESTING_MAX:
            raise NotJson(f"it is nested over {NESTING_MAX} levels")
        if isinstance(value, dict):
            for key, held in value.items():
                if not isinstance(key, str):
                    raise NotJson(f"{at or '/'} has a key that is no string but {_type_name_of(key)}")
                if "\0" in key:
                    raise NotJson(f"{at or '/'} has a key with a NUL in it")
                waiting.append((held, level + 1, f"{at}/{key[:40]}" if level < POINTER_DEPTH_MAX else at))
        elif isinstance(value, (list, tuple)):
            waiting += [
                (held, level + 1, f"{at}/{index}" if level < POINTER_DEPTH_MAX else at)
                for index, held in enumerate(value)
            ]
        else:
            _check_scalar(value, at)


def _check_scalar(value: Any, at: str) -> None:
    if value is None or isinstance(value, (str, bool)):
        return
    if isinstance(value, int):
        if value not in _INT64_RANGE:
            raise NotJson(f"{at} is an integer beyond 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise NotJson(f"{at} is {value}, which JSON does not have")
    else:
        raise NotJson(f"{at} is {_type_name_of(value)}, which JSON does not have")


def _type_name_of(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def _safe_text_of(value: object) -> str:
    """The words of an exception or an error value, without server paths, in at most 4 KiB."""
    try:
        text = str(value)
    except Exception as wrong:  # noqa: BLE001  (an agent's class may raise anything)
        text = f"<its text raises {type(wrong).__name__}>"
    text = _SERVER_PATH.sub("<path>", text[: MESSAGE_MAX_BYTES * 2])
    return text.encode("utf-8", "replace")[: MESSAGE_MAX_BYTES - 256].decode("utf-8", "ignore")


def _run_error_of(step: Step, code: str, message: str, kind: ErrorKind = ErrorKind.PERMANENT) -> RunError:
    return RunError(
        code,
        message.encode("utf-8", "replace")[:MESSAGE_MAX_BYTES].decode("utf-8", "ignore"),
        kind,
        agent=step.agent,
        step=step.id,
        attempt=step.claims,
        retryable=kind is ErrorKind.TRANSIENT,
    )
