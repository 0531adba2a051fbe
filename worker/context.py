"""What an agent is handed beside its input: who it is, how long it has, where to report and to keep what it has done.

``log`` and ``progress`` never raise into it: they only pass lines on to the runner's Reporter, so that a hook that
fails, a value that is no JSON or a message of a megabyte costs the agent nothing but the line.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

import orjson

LOG_LINE_MAX_BYTES: Final = 4096
PROGRESS_MESSAGE_MAX_CHARS: Final = 200
LOG_LEVELS: Final = {"warn": "warning", "critical": "error"} | {
    level: level for level in ("debug", "info", "warning", "error")
}
# What the stores take; a line beyond them would spoil the very update that completes the step.
_NESTING_MAX: Final = 32
_INT64_MAX: Final = 2**63 - 1
_REPR_MAX_CHARS: Final = 500


class Reporter(Protocol):
    """Where an agent's lines go; the runner sends them on in batches."""

    def line(self, level: str, message: str, data_json: bytes) -> None:
        """Take a log line of at most 4 KiB; ``data_json`` is an object that the stores accept."""

    def progress(self, percent: int | None, message: str | None) -> None:
        """Take the highest percentage so far, 0 to 100, and what the agent says of it; None where it says nothing."""


class Ledger(Protocol):
    """Where the financial coordinator keeps its transactions."""

    def add(self, key: str, transaction: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store ``transaction`` under ``key``; a second time answers the one that was stored first."""

    def transactions(self) -> Sequence[Mapping[str, Any]]:
        """Answer the newest 1,000, oldest first, each ``{id, amount, description, type}``."""


class Checkpoints(Protocol):
    """Where an agent's checkpoints are kept, until its step is over."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep the newest; it is stored once this returns."""

    def latest(self) -> dict[str, Any] | None:
        """Answer the newest of the step, of whichever attempt; None where there is none."""


class CheckpointsInMemory:
    """Checkpoints of a context without a worker, as an agent's own tests make one."""

    def __init__(self) -> None:
        self._latest: bytes | None = None

    def save(self, state: dict[str, Any]) -> None:
        """Keep a copy."""
        self._latest = orjson.dumps(state)

    def latest(self) -> dict[str, Any] | None:
        """Answer a copy."""
        state: dict[str, Any] | None = None if self._latest is None else orjson.loads(self._latest)
        return state


@dataclass(slots=True, kw_only=True)
class AgentContext:
    """One attempt of one step, as its agent sees it; ``deadline`` is aware, ``previous_state`` None where none is."""

    execution_id: str
    step: str
    attempt: int
    idempotency_key: str
    request_id: str
    deadline: datetime
    ledger: Ledger
    reporter: Reporter
    cancel: threading.Event = field(default_factory=threading.Event)
    previous_state: Mapping[str, Any] | None = None
    checkpoints: Checkpoints = field(default_factory=CheckpointsInMemory)
    _percent: int | None = field(default=None, init=False)

    @property
    def cancelled(self) -> bool:
        """Whether the agent is asked to stop; a long one looks now and then, and returns or raises."""
        return self.cancel.is_set()

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Store how far the step is, an object of at most 4 MiB: another attempt finds it, this process may die now.

        Raises ValueError for what JSON does not have or is too large. Any other error means that this attempt is to
        stop: let it pass.
        """
        self.checkpoints.save(state)

    def restore(self) -> dict[str, Any] | None:
        """Answer the newest checkpoint of this step, of whichever attempt; None where there is none."""
        return self.checkpoints.latest()

    def log(self, message: object, /, level: str = "info", **data: Any) -> None:
        """Record a line of the run's log; ``level`` is debug, info, warning or error. Over 4 KiB it is cut."""
        try:
            self.reporter.line(
                LOG_LEVELS.get(_text_of(level).lower(), "info"), *_encode_log_line(_text_of(message), data)
            )
        except Exception:
            logging.getLogger(__name__).warning("an agent's log line was lost", exc_info=True)

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how much is done, 0 to 1, and what is going on; a fraction below an earlier one changes nothing."""
        try:
            percent = _percent_of(fraction)
            if percent is not None:
                self._percent = max(percent, self._percent or 0)
            self.reporter.progress(self._percent, _text_of(message)[:PROGRESS_MESSAGE_MAX_CHARS] or None)
        except Exception:
            logging.getLogger(__name__).warning("an agent's progress was lost", exc_info=True)


def _percent_of(fraction: Any) -> int | None:
    try:
        part = float(fraction)
    except (TypeError, ValueError, OverflowError):
        return None
    # 0.29 * 100 is 28.999999999999996
    return None if math.isnan(part) else int(min(max(part, 0.0), 1.0) * 100 + 1e-9)


def _text_of(value: object) -> str:
    try:
        text = str(value)
    except Exception as wrong:  # noqa: BLE001 - an agent's class may raise anything
        text = f"<{type(value).__name__}, whose text raises {type(wrong).__name__}>"
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _encode_log_line(message: str, data: Mapping[str, Any]) -> tuple[str, bytes]:
    said = len(orjson.dumps(message))
    data_json = orjson.dumps({_text_of(name): _to_storable(value) for name, value in data.items()})
    total = said + len(data_json)
    if total <= LOG_LINE_MAX_BYTES:
        return message, data_json
    if data:
        data_json = orjson.dumps({"cut": True, "bytes": len(data_json)})
    room = LOG_LINE_MAX_BYTES - len(data_json)
    return (message if said <= room else _truncate(message, room)), data_json


def _truncate(message: str, room: int) -> str:
    end = f"… (cut from {len(message.encode())} bytes)"
    room -= len(orjson.dumps(end))
    kept = message.encode()[:room].decode(errors="ignore")
    # JSON writes a control character as six: cut again until what is written fits.
    while len(written := orjson.dumps(kept)) - 2 > room:
        kept = kept[: len(kept) * room // len(written)]
    return kept + end


def _to_storable(value: object) -> Any:
    """Answer ``value`` as JSON that every store takes, or else its repr, marked so."""
    try:
        plain = orjson.loads(orjson.dumps(value))
        if _is_storable(plain, 1):
            return plain
    except (TypeError, ValueError):
        pass
    try:
        text = repr(value)
    except Exception as wrong:  # noqa: BLE001 - an agent's class may raise anything
        text = f"<{type(value).__name__}, whose repr raises {type(wrong).__name__}>"
    return {"not_json": True, "repr": _text_of(text[:_REPR_MAX_CHARS])}


def _is_storable(value: Any, level: int) -> bool:
    if isinstance(value, dict):
        keys_fit = all("\0" not in key for key in value)
        return keys_fit and level < _NESTING_MAX and all(_is_storable(held, level + 1) for held in value.values())
    if isinstance(value, list):
        return level < _NESTING_MAX and all(_is_storable(held, level + 1) for held in value)
    return not isinstance(value, int) or value <= _INT64_MAX
