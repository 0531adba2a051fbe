"""The context that an agent receives beside its input: its identity and deadline, logging, progress, checkpoints.

``log`` and ``progress`` never raise into the agent: they only pass lines to the runner's Reporter. A hook that fails,
a value that is not JSON or a message of a megabyte costs the agent only that line.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, Protocol

import orjson

from worker.agent_settings import hide_settings
from worker.gateway.closed import ClosedGateway

LOG_LINE_MAX_BYTES: Final = 4096
PROGRESS_MESSAGE_MAX_CHARS: Final = 200
LOG_LEVELS: Final = {"warn": "warning", "critical": "error"} | {
    level: level for level in ("debug", "info", "warning", "error")
}
# Limits of the stores: a line beyond them would make the store refuse the update that completes the step.
_NESTING_MAX: Final = 32
_INT64_MAX: Final = 2**63 - 1
_REPR_MAX_CHARS: Final = 500


class Reporter(Protocol):
    """Receives an agent's log lines and progress; the runner writes them in batches."""

    def line(self, level: str, message: str, data_json: bytes) -> None:
        """Take a log line of at most 4 KiB; ``data_json`` is an object that the stores accept."""

    def progress(self, percent: int | None, message: str | None) -> None:
        """Take the highest percentage so far (0 to 100) and the agent's message; each may be None."""


class Ledger(Protocol):
    """The store of the financial coordinator's transactions."""

    def add(self, key: str, transaction: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store ``transaction`` under ``key`` and return it; if the key exists, return what was stored first."""

    def transactions(self, account: str | None = None) -> Sequence[Mapping[str, Any]]:
        """Return the newest 1,000, oldest first, each ``{id, amount, description, type}`` and what else it was given.

        With ``account``: only those of this account; ``""`` means those that have none.
        """

    def all_transactions(self, account: str | None = None) -> Iterator[Mapping[str, Any]]:
        """Yield every transaction, or every one of ``account``, in no particular order, page by page.

        One without a ``date`` gets the moment at which it was added. One that is added meanwhile may be missing.
        """

    def accounts(self, limit: int) -> Sequence[str]:
        """Return the accounts of all transactions, sorted, at most ``limit``; ``""`` if some have no account."""


class Checkpoints(Protocol):
    """The store of a step's checkpoints, until the step has ended."""

    def save(self, state: dict[str, Any]) -> None:
        """Store a checkpoint, which replaces the one before; it is stored when this returns."""

    def latest(self) -> dict[str, Any] | None:
        """Return the newest checkpoint of the step, from any attempt; None if there is none."""


class Http(Protocol):
    """The gateway: the only way out that Bucket offers to an agent. The calls are those of httpx.

    Options of its own: ``critical``, ``retry``, ``fallback``, ``idempotency_key``; docs/agents.md says what they do.
    Errors are those of ``worker.gateway.gateway_errors``.
    """

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Send a request and return the response, whose body is read; raises GatewayError."""

    def get(self, url: str, **options: Any) -> Any:
        """Send a GET request."""

    def post(self, url: str, **options: Any) -> Any:
        """Send a POST request."""

    def put(self, url: str, **options: Any) -> Any:
        """Send a PUT request."""

    def patch(self, url: str, **options: Any) -> Any:
        """Send a PATCH request."""

    def delete(self, url: str, **options: Any) -> Any:
        """Send a DELETE request."""


@dataclass(slots=True, kw_only=True)
class AgentContext:
    """One attempt of one step, as its agent sees it.

    ``deadline`` is an aware datetime; ``settings`` are the variables that the agent's spec names, as far as they are
    set; ``previous_state`` is None if the agent has no memory in this basket.
    """

    execution_id: str
    step: str
    attempt: int
    idempotency_key: str
    request_id: str
    deadline: datetime
    ledger: Ledger
    reporter: Reporter
    checkpoints: Checkpoints
    http: Http = field(default_factory=ClosedGateway)
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    not_shown: Mapping[str, str] | None = field(default=None, repr=False)
    """What no log line may show: the settings, and the texts of marked fields; None: the settings alone."""
    cancel: threading.Event = field(default_factory=threading.Event)
    previous_state: Mapping[str, Any] | None = None
    _percent: int | None = field(default=None, init=False)

    @property
    def _hidden(self) -> Mapping[str, str]:
        return self.settings if self.not_shown is None else self.not_shown

    @property
    def cancelled(self) -> bool:
        """Whether the agent is asked to stop; a long-running agent checks this now and then, and returns or raises."""
        return self.cancel.is_set()

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Store a checkpoint: how far the step has come, as an object of at most 4 MiB, for the next attempt.

        When this returns it is stored, even if this process dies. Raises ValueError if ``state`` is not JSON or is too
        large. Any other error means that this attempt must stop: let it pass.
        """
        self.checkpoints.save(state)

    def restore(self) -> dict[str, Any] | None:
        """Return the newest checkpoint of this step, from any attempt; None if there is none."""
        return self.checkpoints.latest()

    def log(self, message: object, /, level: str = "info", **data: Any) -> None:
        """Write a line to the run's log; ``level`` is debug, info, warning or error. A line over 4 KiB is cut."""
        write_log_line(self.reporter, self._hidden, message, level, **data)

    def progress(self, fraction: float, message: str = "") -> None:
        """Report the progress, 0 to 1, and a message; a fraction below an earlier one does not lower the progress."""
        try:
            percent = _percent_of(fraction)
            if percent is not None:
                self._percent = max(percent, self._percent or 0)
            text = _hide(self._hidden, _text_of(message))
            self.reporter.progress(self._percent, text[:PROGRESS_MESSAGE_MAX_CHARS] or None)
        except Exception:
            logging.getLogger(__name__).warning("an agent's progress was lost", exc_info=True)


def write_log_line(
    reporter: Reporter, settings: Mapping[str, str], message: object, /, level: str = "info", **data: Any
) -> None:
    """Write a line to the run's log, without the values of ``settings``; never raises."""
    try:
        hide = partial(_hide, settings)
        text, data_json = _encode_log_line(hide(_text_of(message)), data, hide)
        reporter.line(LOG_LEVELS.get(_text_of(level).lower(), "info"), text, data_json)
    except Exception:
        logging.getLogger(__name__).warning("an agent's log line was lost", exc_info=True)


def _hide(settings: Mapping[str, str], text: str) -> str:
    return hide_settings(text, settings) if settings else text


def _percent_of(fraction: Any) -> int | None:
    try:
        number = float(fraction)
    except (TypeError, ValueError, OverflowError):
        return None
    # 0.29 * 100 is 28.999999999999996
    return None if math.isnan(number) else int(min(max(number, 0.0), 1.0) * 100 + 1e-9)


def _text_of(value: object) -> str:
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - an agent's class may raise anything
        text = f"<{type(value).__name__}, whose text raises {type(error).__name__}>"
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _encode_log_line(message: str, data: Mapping[str, Any], hide: Callable[[str], str]) -> tuple[str, bytes]:
    message_bytes = len(orjson.dumps(message))
    data_json = orjson.dumps(
        {_text_of(name): _map_texts(_to_storable(value, hide), hide) for name, value in data.items()}
    )
    total_bytes = message_bytes + len(data_json)
    if total_bytes <= LOG_LINE_MAX_BYTES:
        return message, data_json
    if data:
        data_json = orjson.dumps({"cut": True, "bytes": len(data_json)})
    room_bytes = LOG_LINE_MAX_BYTES - len(data_json)
    return (message if message_bytes <= room_bytes else _truncate(message, room_bytes)), data_json


def _truncate(message: str, room_bytes: int) -> str:
    suffix = f"… (cut from {len(message.encode())} bytes)"
    room_bytes -= len(orjson.dumps(suffix))
    text = message.encode()[:room_bytes].decode(errors="ignore")
    # JSON encodes a control character as six characters: cut again until the encoded text fits.
    while len(encoded := orjson.dumps(text)) - 2 > room_bytes:
        text = text[: len(text) * room_bytes // len(encoded)]
    return text + suffix


def _to_storable(value: object, hide: Callable[[str], str]) -> Any:
    """Return ``value`` as JSON that every store accepts, or else its repr, marked by ``not_json``."""
    try:
        plain = orjson.loads(orjson.dumps(value))
        if _is_storable(plain, 1):
            return plain
    except (TypeError, ValueError):
        pass
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - an agent's class may raise anything
        text = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    # Hidden before the cut, which would leave the beginning of a value that is no longer found.
    return {"not_json": True, "repr": hide(_text_of(text[: _REPR_MAX_CHARS * 8]))[:_REPR_MAX_CHARS]}


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return the JSON ``value`` with each text changed; a number whose text would change becomes that text."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _map_texts(child, change) for key, child in value.items()}
    if isinstance(value, list):
        return [_map_texts(child, change) for child in value]
    if value is None or isinstance(value, bool):
        return value
    text = str(value)
    return value if (changed := change(text)) == text else changed


def _is_storable(value: Any, level: int) -> bool:
    if isinstance(value, dict):
        keys_fit = all("\0" not in key for key in value)
        return keys_fit and level < _NESTING_MAX and all(_is_storable(child, level + 1) for child in value.values())
    if isinstance(value, list):
        return level < _NESTING_MAX and all(_is_storable(child, level + 1) for child in value)
    return not isinstance(value, int) or value <= _INT64_MAX
