"""Recorded exchanges: what a request of an integration is about, and what its reply says of runs and hints.

A record never holds a credential: of the headers only those in ``RECORDED_HEADERS`` are kept, and of the body of a
reply only what the checks need.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote

RECORDED_HEADERS: Final = frozenset({"idempotency-key", "prefer", "if-none-match", "content-type", "user-agent"})
_HELD_MAX_S: Final = 30.0
_NOT_MODIFIED: Final = 304
_OK: Final = 200
_CONFLICT: Final = 409
_WITH_RUNS: Final = ("/run-", "/execution", "/consumers/", "/dead-letters/")


class Kind(StrEnum):
    """What a request is for: to make runs, to learn how they stand, or anything else."""

    SUBMIT = "submit"
    POLL = "poll"
    POLL_OF_MANY = "poll of many"
    FEED = "feed"
    OTHER = "other"

    @property
    def is_poll(self) -> bool:
        """Return whether the server's hints say when to send it again."""
        return self in {Kind.POLL, Kind.POLL_OF_MANY, Kind.FEED}


_FEED_PATH: Final = re.compile(r"/(executions|consumers/[^/]+)/changes")
_POLL_PATH: Final = re.compile(r"/(?:execution-logs|executions)/([^/]+)(?:/result)?")
_SUBMIT_PATH: Final = re.compile(
    r"/(run-basket|run-agent|run-basket/batch|executions/[^/]+/retry|dead-letters/[^/]+/requeue)"
)


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request as it arrived; ``path`` is without the address of the server, ``/api/v1`` and the query."""

    arrived_at: float
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @classmethod
    def read(
        cls, arrived_at: float, method: str, target: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> Self:
        """Return the record of a request to ``target``, its path and query below the address of the server."""
        path, _, query = target.partition("?")
        kept = {name.lower(): value for name, value in headers if name.lower() in RECORDED_HEADERS}
        pairs = dict(parse_qsl(query, keep_blank_values=True))
        return cls(arrived_at, method, path.removeprefix("/api/v1"), pairs, kept, body)

    @property
    def kind(self) -> Kind:
        """Return what the request is for."""
        if self.method == "POST":
            if _SUBMIT_PATH.fullmatch(self.path):
                return Kind.SUBMIT
            return Kind.POLL_OF_MANY if self.path == "/executions/poll" else Kind.OTHER
        if self.method in {"GET", "HEAD"}:
            if _FEED_PATH.fullmatch(self.path):
                return Kind.FEED
            if _POLL_PATH.fullmatch(self.path):
                return Kind.POLL
        return Kind.OTHER

    @property
    def is_batch(self) -> bool:
        """Return whether it is a submit of many runs."""
        return self.path == "/run-basket/batch"

    @property
    def subjects(self) -> tuple[str, ...]:
        """Return what a poll asks about: ids of runs, or the feed with its filters."""
        match self.kind:
            case Kind.POLL if found := _POLL_PATH.fullmatch(self.path):
                return (unquote(found[1]),)
            case Kind.POLL_OF_MANY:
                return tuple(str(item["execution_id"]) for item in self.items if "execution_id" in item)
            case Kind.FEED:
                return (f"{self.path} {self.query.get('basket')} {self.query.get('tag')}",)
        return ()

    @property
    def items(self) -> list[dict[str, Any]]:
        """Return the items of a batch or of a poll of many, or the one body of a submit."""
        body = json_of(self.body)
        if not isinstance(body, dict):
            return []
        if self.is_batch or self.kind is Kind.POLL_OF_MANY:
            items = body.get("items")
            return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        return [body]

    @property
    def keys(self) -> tuple[str | None, ...]:
        """Return the Idempotency-Key of each run that a submit asks for; None for a run without one."""
        header = self.headers.get("idempotency-key")
        if not self.is_batch:
            return (header,)
        own = (item.get("idempotency_key") for item in self.items)
        return tuple(header if key is None else str(key) for key in own)

    @property
    def content(self) -> tuple[str, str, str]:
        """Return what a repeat has in common with the first request: everything but the keys."""
        bare = [{name: value for name, value in item.items() if name != "idempotency_key"} for item in self.items]
        return self.method, self.path, json.dumps(bare, sort_keys=True)

    @property
    def hold_s(self) -> float:
        """Return for how long the server may hold the request; 0 if it is not a long poll."""
        if self.kind is Kind.POLL_OF_MANY:
            return 0.0
        prefer = re.search(r"\bwait=(\d+)", self.headers.get("prefer", ""))
        text = self.query.get("wait") or (prefer[1] if prefer else "0")
        try:
            wait_s = float(text)
        except ValueError:
            return 0.0
        return min(wait_s, _HELD_MAX_S) if wait_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class RunState:
    """How a reply shows one run; ``rev`` and ``poll_after_ms`` are None if it does not say."""

    rev: int | None
    done: bool
    poll_after_ms: float | None = None


@dataclass(frozen=True, slots=True)
class RecordedReply:
    """What a reply says; ``has_more`` means that the rest of a log or a feed may be read at once.

    ``has_lines`` means that it brought log lines after the ones that the client had.
    """

    replied_at: float
    status: int
    retry_after_s: float | None = None
    poll_after_ms: float | None = None
    was_granted: bool = False
    runs: Mapping[str, RunState] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    has_more: bool = False
    has_lines: bool = False

    @classmethod
    def read(
        cls, request: RecordedRequest, replied_at: float, status: int, headers: Mapping[str, str], body: bytes = b""
    ) -> Self:
        """Return what a reply to ``request`` says; the names of ``headers`` are lower case."""
        retry_after = headers.get("retry-after", "")
        with_runs = request.path.startswith(_WITH_RUNS) and not _is_foreign(request, status)
        view = json_of(body) if with_runs else None
        view = view if isinstance(view, dict) else {}
        left_out = view.get("left_out")
        rows = [row for name in ("items", "changed", "changes", "executions") for row in _rows(view, name)]
        if not rows and "execution_id" in view:
            rows = [view]
        runs = {str(row["execution_id"]): _state_of(row) for row in rows if "execution_id" in row}
        if request.kind is Kind.POLL and _is_end(request, status, retry_after):
            runs = {request.subjects[0]: RunState(None, done=True)}
        return cls(
            replied_at,
            status,
            retry_after_s=float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None,
            poll_after_ms=_number(view.get("poll_after_ms")),
            was_granted="preference-applied" in headers,
            runs=runs,
            left_out=frozenset(map(str, left_out)) if isinstance(left_out, list) else frozenset(),
            has_more=bool(view.get("changes")) or _has_more_lines(view),
            has_lines="after" in request.query and bool(view.get("logs")),
        )

    @property
    def hint_s(self) -> float:
        """Return the pause before the next poll: ``poll_after_ms`` if the body has it, else ``Retry-After``."""
        return self.retry_after_s or 0.0 if self.poll_after_ms is None else self.poll_after_ms / 1000


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its reply; ``was_delivered`` is false for a reply that did not reach the client."""

    request: RecordedRequest
    reply: RecordedReply | None
    was_delivered: bool = True


def json_of(body: bytes) -> Any:
    """Return the JSON of a body, or None if it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _is_foreign(request: RecordedRequest, status: int) -> bool:
    """Return whether the body of the reply is the output of an agent, whose keys mean nothing here."""
    return "/outputs/" in request.path or (request.path.endswith("/result") and status == _OK)


def _is_end(request: RecordedRequest, status: int, retry_after: str) -> bool:
    """Return whether the status alone says that a run is done."""
    is_result = request.path.endswith("/result") and status in {_OK, _CONFLICT}
    return is_result or (status == _NOT_MODIFIED and not retry_after)


def _has_more_lines(view: Mapping[str, Any]) -> bool:
    next_after, total = _number(view.get("next_after")), _number(view.get("total"))
    return next_after is not None and total is not None and next_after < total


def _rows(view: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    rows = view.get(name)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _state_of(row: Mapping[str, Any]) -> RunState:
    rev = row.get("rev")
    return RunState(rev if isinstance(rev, int) else None, row.get("done") is True, _number(row.get("poll_after_ms")))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
