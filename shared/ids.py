"""Makes and reads ids and tokens; an execution's id begins with the second of its creation."""

from __future__ import annotations

import os
import re
import secrets
from collections import deque
from datetime import UTC, datetime
from typing import Final

_TOKEN_DIGITS: Final = 16
_TOKENS_FETCHED: Final = 256
# Random bytes are fetched for many tokens at once: a call to the kernel gives up the GIL, and gets it back late.
_tokens: deque[str] = deque()
os.register_at_fork(after_in_child=_tokens.clear)  # no two processes may give out the same ones

EXECUTION_ID_PATTERN = re.compile(r"[0-9]{10}_[0-9a-f]{16}", re.ASCII)
DEAD_LETTER_ID_PATTERN = re.compile(rf"{EXECUTION_ID_PATTERN.pattern}|message-[0-9a-f]{{24}}", re.ASCII)
AGENT_NAME_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
INTEGRATOR_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
BASKET_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+-]{0,99}", re.ASCII)
CONSUMER_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
TRACEPARENT_PATTERN = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,400})?", re.ASCII)


def new_execution_id(now: datetime) -> str:
    """Return a new id of the form ``<second>_<64 random bits>``, such as ``1763700000_89ce24ad1b2c3d4e``."""
    return f"{int(now.timestamp())}_{new_token()}"


def created_at_of(execution_id: str) -> datetime:
    """Return the second in which ``execution_id`` was created."""
    return datetime.fromtimestamp(int(execution_id[:10]), UTC)


def id_upper_bound(moment: datetime) -> str:
    """Return a string that sorts after the ids of all executions created up to the second of ``moment``.

    It sorts before all later ids. Ids sort by their second of creation until that has eleven digits (year 2286).
    """
    return str(int(moment.timestamp()) + 1)


def new_token() -> str:
    """Return 64 random bits as hexadecimal digits: the fencing token of one claim or one write, or a part of an id."""
    try:
        return _tokens.pop()
    except IndexError:
        digits = secrets.token_hex(_TOKENS_FETCHED * _TOKEN_DIGITS // 2)
        fetched = [digits[start : start + _TOKEN_DIGITS] for start in range(0, len(digits), _TOKEN_DIGITS)]
        token = fetched.pop()
        _tokens.extend(fetched)
        return token


def new_request_id() -> str:
    """Return a new id for a request that came without one."""
    return f"req-{new_token()}"
