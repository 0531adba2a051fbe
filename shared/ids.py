"""Makes and reads ids and tokens; an execution's id begins with the second of its creation."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

EXECUTION_ID_PATTERN = re.compile(r"[0-9]{10}_[0-9a-f]{16}", re.ASCII)
DEAD_LETTER_ID_PATTERN = re.compile(rf"{EXECUTION_ID_PATTERN.pattern}|message-[0-9a-f]{{24}}", re.ASCII)
AGENT_NAME_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
BASKET_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+-]{0,99}", re.ASCII)
CONSUMER_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


def new_execution_id(now: datetime) -> str:
    """Return a new id of the form ``<second>_<64 random bits>``, such as ``1763700000_89ce24ad1b2c3d4e``."""
    return f"{int(now.timestamp())}_{secrets.token_hex(8)}"


def created_at_of(execution_id: str) -> datetime:
    """Return the second in which ``execution_id`` was created."""
    return datetime.fromtimestamp(int(execution_id[:10]), UTC)


def id_upper_bound(moment: datetime) -> str:
    """Return a string that sorts after the ids of all executions created up to the second of ``moment``.

    It sorts before all later ids. Ids sort by their second of creation until that has eleven digits (year 2286).
    """
    return str(int(moment.timestamp()) + 1)


def new_token() -> str:
    """Return a new fencing token (64 random bits) for one claim or one write."""
    return secrets.token_hex(8)


def new_request_id() -> str:
    """Return a new id for a request that came without one."""
    return f"req-{secrets.token_hex(10)}"
