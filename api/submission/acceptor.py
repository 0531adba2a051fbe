"""Stores a run and answers at once with what to poll; whoever sends the same key again is answered the same run.

What has been accepted is answered as it stands, whatever has become of its basket, of Redis or of the backlog since:
the holder of a key is looked for before anything is refused. Where nothing is, the insert itself finds out whether
there is one, so that a new key costs no look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import flask
import orjson
from flask import request

from api.background import Keeper
from api.hints.poll_hints import Hints
from api.http import version_prefix
from api.http.etags import Reply, etag_of
from api.http.request_body import fingerprint, read_body
from api.submission.group_commit import GroupCommit
from api.submission.run_builder import key_of, traceparent_of
from shared.bootstrap import Services
from shared.domain.execution import PUBLIC, Execution, Idempotency
from shared.domain.lifecycle.transitions import start
from shared.errors import BucketError, IdempotencyKeyReused, OutcomeUnknown
from shared.live.render import metadata_shown, moment


@dataclass(frozen=True, slots=True)
class Asker:
    """What every request that makes an execution brings along in its headers."""

    now: datetime
    request_id: str
    traceparent: str | None
    idempotency: Idempotency | None


Made = tuple[Execution, Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A run that was accepted, now or before, and what its caller is answered."""

    execution_id: str
    response: flask.Response
    warnings: Sequence[str]


class Acceptor:
    """The one way by which requests make executions."""

    def __init__(self, services: Services, keeper: Keeper) -> None:
        self._services = services
        self._keeper = keeper
        self._commits = GroupCommit(services)

    def accept(self, make: Callable[[Asker], Made], warnings: Sequence[str] = ()) -> Accepted:
        """Answer the run that holds this request's key, or store and offer the one that ``make`` answers.

        ``make`` answers a blank execution and the outputs it begins with; it raises for whatever is to be refused.
        """
        environ = request.environ
        key = key_of(environ.get("HTTP_IDEMPOTENCY_KEY"))
        idempotency = None if key is None else Idempotency(key, self._fingerprint())
        asker = Asker(
            self._services.clock.now(),
            flask.g.request_id,
            traceparent_of(environ.get("HTTP_TRACEPARENT")),
            idempotency,
        )
        try:
            self._keeper.check_may_accept()
            run, outputs = make(asker)
        except BucketError:
            replay = self._replay(idempotency, warnings)
            if replay is None:
                raise
            return replay
        # Outputs would be stored, and for nothing, before the insert that finds out.
        replay = self._replay(idempotency, warnings) if outputs else None
        return replay or self._store(run, outputs, warnings)

    def _replay(self, asked: Idempotency | None, warnings: Sequence[str]) -> Accepted | None:
        """Answer the run that holds a key; None where none does."""
        holder = None if asked is None else self._services.store.holder(PUBLIC, asked.key)
        return None if asked is None or holder is None else self._replayed(holder, asked, warnings)

    def _store(self, run: Execution, outputs: Mapping[str, bytes], warnings: Sequence[str]) -> Accepted:
        accepted = start(run, run.created_at, self._services.terms)
        try:
            stored = self._commits.store(accepted, outputs)
        except OutcomeUnknown:
            if run.idempotency is None:
                self._keeper.withdraw(run)
            raise
        if stored.id != run.id and run.idempotency is not None:
            return self._replayed(stored, run.idempotency, warnings)
        return self._accepted(stored, warnings)

    def _replayed(self, holder: Execution, asked: Idempotency, warnings: Sequence[str]) -> Accepted:
        check_replay(holder, asked)
        accepted = self._accepted(holder, warnings)
        accepted.response.headers["Idempotency-Replayed"] = "true"
        return accepted

    def _accepted(self, run: Execution, warnings: Sequence[str]) -> Accepted:
        return Accepted(run.id, _answer(run, self._keeper.hints_of(run), warnings), warnings)

    @staticmethod
    def _fingerprint() -> str:
        return fingerprint(request.path.removeprefix(version_prefix.prefix()), read_body(request, optional=True))


def check_replay(holder: Execution, asked: Idempotency) -> None:
    """Raise IdempotencyKeyReused where the run that holds a key was submitted with another body."""
    if holder.idempotency is not None and holder.idempotency.fingerprint != asked.fingerprint:
        raise IdempotencyKeyReused


def told_of(run: Execution, poll_after_ms: int | None, warnings: Sequence[str]) -> dict[str, Any]:
    """Answer what a caller is told of a run that was accepted."""
    told: dict[str, Any] = {
        "execution_id": run.id,
        "status": run.status,
        "done": run.done,
        "rev": run.rev,
        "execution_metadata": metadata_shown(run),
        "status_url": f"{version_prefix.prefix()}/execution-logs/{run.id}",
        "message": "accepted; poll status_url until done is true",
        "created_at": moment(run.created_at),
        "request_id": run.request_id,
    }
    if run.retry_of is not None:
        told["retry_of"] = run.retry_of
    if poll_after_ms is not None:
        told["poll_after_ms"] = poll_after_ms
    if warnings:
        told["warnings"] = list(warnings)
    return told


def _answer(run: Execution, hints: Hints, warnings: Sequence[str]) -> flask.Response:
    body = told_of(run, hints.poll_after_ms, warnings)
    headers = [
        ("Content-Type", "application/json"),
        ("Location", body["status_url"]),
        ("ETag", etag_of(run.id, run.rev)),
        ("Cache-Control", "no-store"),
    ]
    if hints.retry_after_s is not None:
        headers.append(("Retry-After", str(hints.retry_after_s)))
    return Reply(orjson.dumps(body), 202, headers)
