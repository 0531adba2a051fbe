"""Strict JSON: parses only what the stores and the encoder can hold, and writes canonical JSON; knows nothing of HTTP.

The standard library's decoder does the work, with hooks for values that JSON allows but BSON or orjson would refuse
later. The first pass only detects that there is a fault; only then a second pass marks each fault and finds its JSON
pointer, so that a valid body pays nothing for good messages. The depth is counted before parsing: no body can exhaust
the stack.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, Final, TypeVar

import orjson

from shared.errors import InvalidJson
from shared.json_pointer import format_pointer

DEPTH_MAX: Final = 32
FAULTS_MAX: Final = 20
NAME_MAX_CHARS: Final = 64

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_INT_DIGITS: Final = 20  # the longest literal that can lie in 64 bits; JSON forbids leading zeros
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_DEPTH_CHANGES: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
# Surrogates and NUL can only arrive as escapes: raw ones are refused as invalid UTF-8 and as a control character.
_SUSPECT_ESCAPE: Final = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_INTEGRAL_FLOAT: Final = re.compile(rb"\.0(?![0-9])|[0-9]e[0-9+]")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Fault:
    """The description of a fault; it replaces the faulty value in the parsed body."""

    message: str


_NOT_FINITE: Final = _Fault("NaN and infinities are not JSON")
_TOO_LARGE_FLOAT: Final = _Fault("the number is too large for a 64-bit float")
_TOO_LARGE_INT: Final = _Fault("the integer is beyond signed 64 bits; send it as a string")
_DUPLICATE_KEY: Final = _Fault("the key stands twice in one object")
_NUL_KEY: Final = _Fault("a key must not contain NUL (\\u0000)")
_SURROGATE: Final = _Fault("a lone surrogate (\\ud800 to \\udfff) is not text")


def parse(raw: bytes) -> Any:
    """Parse ``raw`` (JSON in UTF-8, no BOM) and return its value.

    Raises InvalidJson, whose details have the JSON pointer, or the line and column, of each fault.
    """
    text = _decode(raw)
    if raw.count(b"[") + raw.count(b"{") > DEPTH_MAX and depth_of(raw) > DEPTH_MAX:
        raise InvalidJson(f"the body is nested deeper than {DEPTH_MAX} levels")
    try:
        value = _decode_json(_STRICT_DECODER, text)
        may_have_faults = _SUSPECT_ESCAPE.search(raw) is not None
    except _FaultNoticed:
        value, may_have_faults = _decode_json(_FAULT_MARKING_DECODER, text), True
    if may_have_faults:
        _raise_faults(value)
    return value


def depth_of(raw: bytes) -> int:
    """Return how deeply arrays and objects nest in ``raw``, outside strings; linear time, no recursion.

    Without escaped backslashes and quotes, every second piece between quotes is a string. If that is not so, the text
    is not JSON, and the parser stops before it gets there.
    """
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(bare.split(b'"')[::2]).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_DEPTH_CHANGES.__getitem__, brackets)), default=0)


def canonical_json(value: Any) -> bytes:
    """Return canonical JSON of ``value``, which must come from :func:`parse`: equal JSON gives equal bytes."""
    encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if _INTEGRAL_FLOAT.search(encoded):
        return orjson.dumps(_integral_floats_to_ints(value), option=orjson.OPT_SORT_KEYS)
    return encoded


def json_pointer(path: Sequence[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) of ``path`` for a message: each name is cut to 64 characters."""
    return format_pointer(to_printable(str(part)) for part in path)


def to_printable(name: str) -> str:
    """Return ``name`` for a message: cut to 64 characters, unprintable ones escaped."""
    if not name.isprintable():
        name = name[:NAME_MAX_CHARS].encode("unicode_escape").decode("ascii")
    return name if len(name) <= NAME_MAX_CHARS else name[: NAME_MAX_CHARS - 1] + "…"


def _decode(raw: bytes) -> str:
    if not raw.strip(b" \t\r\n"):
        raise InvalidJson("the body is empty; send a JSON object")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise InvalidJson("the body begins with a byte order mark; send UTF-8 without one")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"the body is not valid UTF-8: see byte {error.start}") from None


class _FaultNoticed(Exception):
    """The first pass found a fault; the second pass says which."""


def _check_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _FaultNoticed
    return value


def _check_int(digits: str) -> int:
    if len(digits) <= _INT_DIGITS and _INT_MIN <= (value := int(digits)) <= _INT_MAX:
        return value
    raise _FaultNoticed


def _check_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _FaultNoticed
    return value


def _mark_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(key for key, _ in pairs)
    return {key: item if counts[key] == 1 else _DUPLICATE_KEY for key, item in pairs}


def _marking(check: Callable[[str], T], fault: _Fault) -> Callable[[str], T | _Fault]:
    def to_fault(digits: str) -> T | _Fault:
        try:
            return check(digits)
        except _FaultNoticed:
            return fault

    return to_fault


_STRICT_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_check_pairs, parse_int=_check_int, parse_float=_check_float, parse_constant=_check_float
)
_FAULT_MARKING_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_mark_pairs,
    parse_int=_marking(_check_int, _TOO_LARGE_INT),
    parse_float=_marking(_check_float, _TOO_LARGE_FLOAT),
    parse_constant=_marking(_check_float, _NOT_FINITE),
)


def _decode_json(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        message = f"the body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        fault = {"line": error.lineno, "column": error.colno, "message": error.msg}
        raise InvalidJson(message, details=[fault]) from None


def _raise_faults(value: Any) -> None:
    """Raise InvalidJson for the first faults in ``value``; do nothing if there is none."""
    found = islice(_find_faults(value), FAULTS_MAX)
    details = [{"pointer": json_pointer(path), "message": fault.message} for path, fault in found]
    if details:
        raise InvalidJson(f"{details[0]['pointer'] or 'the body'}: {details[0]['message']}", details=details)


def _find_faults(value: Any) -> Iterator[tuple[tuple[str | int, ...], _Fault]]:
    queue: deque[tuple[tuple[str | int, ...], Any]] = deque([((), value)])
    while queue:
        path, item = queue.popleft()
        if isinstance(item, _Fault):
            yield path, item
        elif isinstance(item, str) and _LONE_SURROGATE.search(item):
            yield path, _SURROGATE
        elif isinstance(item, dict):
            for key, inner in item.items():
                if "\0" in key:
                    yield (*path, key), _NUL_KEY
                if _LONE_SURROGATE.search(key):
                    yield (*path, key), _SURROGATE
                queue.append(((*path, key), inner))
        elif isinstance(item, list):
            queue.extend(((*path, at), inner) for at, inner in enumerate(item))


def _integral_floats_to_ints(value: Any) -> Any:
    """Return ``value`` with each 1.0 replaced by 1: in JSON they are the same number."""
    if isinstance(value, dict):
        return {key: _integral_floats_to_ints(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_integral_floats_to_ints(item) for item in value]
    if isinstance(value, float) and value.is_integer() and _INT_MIN <= value <= _INT_MAX:
        return int(value)
    return value
