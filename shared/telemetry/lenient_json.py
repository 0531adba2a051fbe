"""Writes any value as JSON and never raises: a reply or a log line must not fail for what it holds.

What JSON cannot say is said as near as it can: a number that is not finite is null, an unknown object its text.
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
    """Answer ``value`` as JSON: by orjson where it can, slowly and approximately where it cannot."""
    try:
        return orjson.dumps(value, _text, _OPTIONS)
    except Exception:  # noqa: BLE001  big integers, surrogates, circles, objects whose __str__ raises
        return json.dumps(_plain(value, ())).encode()


def _text(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def _plain(value: Any, above: tuple[int, ...]) -> Any:
    """Answer ``value`` as something that the standard library surely writes; a circle, and depth over 100, is null."""
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if id(value) in above or len(above) > _DEPTH_MAX:
            return None
        above = (*above, id(value))
        if isinstance(value, Mapping):
            return {_key(key): _plain(item, above) for key, item in value.items()}
        return [_plain(item, above) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if value.bit_length() <= _BITS_MAX else None
    return None if value is None else _key(value)


def _key(value: Any) -> str:
    try:
        text = value.isoformat() if isinstance(value, (datetime, date, time)) else str(_text(value))
    except Exception:  # noqa: BLE001  a __str__ of somebody else's
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "replace").decode("utf-8")
