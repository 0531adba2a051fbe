"""Lenient JSON encoder: encodes any value and never raises, so that no reply or log line fails because of its content.

A value that JSON does not have is approximated: a number that is not finite is null, an unknown object is its text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any, Final

import orjson

_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC | orjson.OPT_NON_STR_KEYS
_DEPTH_MAX: Final = 100
_BITS_MAX: Final = 1024  # Python itself refuses to write the longest integers


def encode_lenient(value: Any) -> bytes:
    """Encode ``value`` as JSON: with orjson if possible, else slowly and approximately."""
    try:
        return orjson.dumps(value, _text, _OPTIONS)
    except Exception:  # noqa: BLE001  big integers, surrogates, reference cycles, objects whose __str__ raises
        return json.dumps(_plain(value, ())).encode()


def _text(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def _plain(value: Any, ancestors: tuple[int, ...]) -> Any:
    """Convert ``value`` for the standard library's encoder; a reference cycle, or a depth over 100, becomes null."""
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if id(value) in ancestors or len(ancestors) > _DEPTH_MAX:
            return None
        ancestors = (*ancestors, id(value))
        if isinstance(value, Mapping):
            return {_key(key): _plain(item, ancestors) for key, item in value.items()}
        return [_plain(item, ancestors) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if value.bit_length() <= _BITS_MAX else None
    return None if value is None else _key(value)


def _key(value: Any) -> str:
    try:
        text = value.isoformat() if isinstance(value, (datetime, date, time)) else str(_text(value))
    except Exception:  # noqa: BLE001  a foreign __str__ may raise anything
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "replace").decode("utf-8")
