"""Records the events of requests: those of writes and refusals before the answer, reads of payloads in the background.

- A request that makes runs: the event is stored by the insert of the run itself, so neither is ever without the other.
- Another write: its event is stored before the write begins, and completed before the answer. If the process dies in
  between, the event stays, and ends as ``unknown``.
- A refusal (no valid key, a missing right, a body that is wrong): its event is stored before the answer, but no more
  than some of a kind in a minute; the rest is counted.

If MongoDB cannot be reached, a write does not begin. Events of refusals then wait in memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

import flask
import structlog
from flask.globals import app_ctx, request_ctx

from api.audit.audited_routes import (
    AUDITED_ROUTES,
    AUTH_DENIED,
    AUTH_FAILED,
    PAYLOAD_ROUTES,
    READ_PAYLOAD,
    RUN_MAKING_ACTIONS,
    check_complete,
)
from api.audit.event_limiter import EventLimiter
from api.auth.audit_note import AuditNote
from api.auth.client_address import client_address
from api.auth.key_cache import KeyCache
from api.auth.route_permissions import operations_by_rule
from api.dashboard.route_names import DASHBOARD_ROUTES
from api.http.middleware import AfterRoute, BeforeRoute
from shared import fault_injection
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.access.audit_event import AuditEvent, Outcome
from shared.domain.access.caller import PUBLIC_CALLER, Caller
from shared.domain.access.key_format import key_id_of
from shared.domain.access.safe_names import is_safe_name
from shared.errors import BucketError, Forbidden, InternalError, OutcomeUnknown, Unauthenticated, Unavailable
from shared.store.access.audit_store import new_event_id

AUTH_EVENTS_MAX: Final = 10
"""Failed log-ins of one address, and refused rights of one caller, that are stored in a minute."""
REFUSALS_MAX: Final = 60
"""Refused writes of one caller, action and error code that are stored in a minute."""
FLUSH_EVERY_S: Final = 0.5
_QUEUE_MAX: Final = 10_000
_READ_KINDS_MAX: Final = 20_000
_NOT_KNOWN: Final = frozenset({OutcomeUnknown.error_code, InternalError.error_code})
"""Errors that do not say whether anything was changed before them."""
_NOT_WRITTEN: Final = "the audit log cannot be written, so nothing was done; send the same request again"


class AuditRecorder:
    """Records the events of one process's requests."""

    def __init__(self, services: Services, key_cache: KeyCache, clock_s: Callable[[], float] = boottime_s) -> None:
        self._store = services.audit
        self._clock = services.clock
        self._keys = key_cache
        self._records_reads = services.settings.audit_reads
        self._auth_limiter = EventLimiter(AUTH_EVENTS_MAX, clock_s)
        self._refusal_limiter = EventLimiter(REFUSALS_MAX, clock_s)
        self._read_limiter = EventLimiter(1, clock_s, _READ_KINDS_MAX)
        self._queue: deque[tuple[str, AuditEvent, bool]] = deque()
        self._queue_lock = threading.Lock()
        self._dropped = 0

    def hooks(self, app: flask.Flask) -> tuple[BeforeRoute, AfterRoute]:
        """Return what begins the event of a request of ``app``, once its caller is known, and what ends it."""
        operations = operations_by_rule(app)
        check_complete(operations.values())
        actions = {key: AUDITED_ROUTES[name] for key, name in operations.items() if name in AUDITED_ROUTES}
        payload_rules = {key for key, name in operations.items() if self._records_reads and name in PAYLOAD_ROUTES}

        def begin(request: flask.Request, _: Any) -> None:
            rule = request.url_rule
            action = None if rule is None else actions.get((rule.rule, request.method))
            if action is not None:
                self._begin(action)

        def end(response: flask.Response, request: flask.Request, _: Any) -> None:
            status = response.status_code
            if request.url_rule is None or (
                status < HTTPStatus.BAD_REQUEST and request.method == "GET" and not payload_rules
            ):
                return  # most polls end here
            key = request.url_rule.rule, request.method
            if operations.get(key) in DASHBOARD_ROUTES:
                return  # the routes that the page has called have their own events
            try:
                if status == HTTPStatus.UNAUTHORIZED:
                    self._record_failed_log_in(operations.get(key))
                elif key in actions or status == HTTPStatus.FORBIDDEN:
                    self._end(actions.get(key), operations.get(key), status)
                elif status == HTTPStatus.OK and key in payload_rules:
                    self._record_read()
            except Exception:  # noqa: BLE001  what was done is done: its answer must not say that it failed
                structlog.get_logger().exception("an audit event was not completed")

        return begin, end

    def record(self, action: str, caller: Caller) -> None:
        """Record what ``caller`` has just done, of which no table of routes tells: a log-in to the dashboard."""
        note = replace(self._note(action), subject=caller.subject, key_id=caller.key_id, integrator=caller.integrator)
        self._store_or_enqueue(new_event_id(), note.event(Outcome.OK))

    def flush(self) -> None:
        """Store what waits in memory, and what was only counted until its minute ended."""
        for limiter in (self._auth_limiter, self._refusal_limiter, self._read_limiter):
            for event in limiter.take_ended():
                self._enqueue(new_event_id(), event)
        if self._dropped:
            structlog.get_logger().error("audit events were dropped: too many waited for MongoDB", count=self._dropped)
            self._dropped = 0
        while self._queue:
            event_id, event, is_begun = self._queue[0]
            try:
                self._store.complete(event_id, event) if is_begun else self._store.add(event, event_id)
            except (Unavailable, OutcomeUnknown):
                return  # it stays, and is tried again
            except BucketError as error:
                structlog.get_logger().error("an audit event cannot be stored", reason=error.message)
            self._queue.popleft()

    @property
    def has_waiting(self) -> bool:
        """Whether events wait in memory."""
        return bool(self._queue)

    def _begin(self, action: str) -> None:
        note = app_ctx.g.audit_note = self._note(action)
        if action in RUN_MAKING_ACTIONS:
            return
        try:
            note.event_id = self._store.begin(note.event(Outcome.UNKNOWN))
        except (Unavailable, OutcomeUnknown) as away:
            raise Unavailable(_NOT_WRITTEN) from away
        fault_injection.reach("api.audit_begun")

    def _note(self, action: str) -> AuditNote:
        g, values = app_ctx.g, tuple((request_ctx.request.view_args or {}).values())
        caller: Caller = g.get("caller") or self._refused_caller()
        return AuditNote(
            at=self._clock.now(),
            action=action,
            subject=caller.subject,
            key_id=caller.key_id,
            integrator=None if caller is PUBLIC_CALLER else caller.integrator,
            address=_address(),
            object_id=values[0] if values and is_safe_name(values[0]) else None,
            request_id=g.request_id,
        )

    def _refused_caller(self) -> Caller:
        """Return who was refused before it was known what it may do, as far as its credentials say."""
        key_id = key_id_of(request_ctx.request.environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2].strip())
        key = None if key_id is None else self._keys.peek(key_id)
        return PUBLIC_CALLER if key is None else key.caller()

    def _end(self, action: str | None, operation: str | None, status: int) -> None:
        """Store how a write ended, or that the right to something was missing."""
        g = app_ctx.g
        note: AuditNote | None = g.get("audit_note")
        error_code = g.get("error_code") if status >= HTTPStatus.BAD_REQUEST else None
        if error_code is None and action in RUN_MAKING_ACTIONS:
            return  # the run has its event; and a repeated request has made none
        if note is None:
            note = self._note(action or AUTH_DENIED)
        if error_code == Forbidden.error_code:
            note.action, note.object_id = AUTH_DENIED, operation
        event = note.event(_outcome_of(status, error_code), error_code)
        if note.event_id is not None:
            self._store_or_enqueue(note.event_id, event, is_begun=True)
        elif event.action == AUTH_DENIED:
            self._store_limited(self._auth_limiter, event.subject, event)
        else:
            self._store_limited(self._refusal_limiter, (event.subject, event.action, error_code), event)

    def _record_failed_log_in(self, operation: str | None) -> None:
        header = request_ctx.request.environ.get("HTTP_AUTHORIZATION")
        now = self._clock.now_or_none()
        if header is None or now is None:
            return
        key_id = key_id_of(header.partition(" ")[2].strip())
        key = None if key_id is None else self._keys.peek(key_id)
        event = AuditEvent(
            at=now,
            action=AUTH_FAILED,
            outcome=Outcome.REFUSED,
            subject="anonymous",
            key_id=key_id,
            integrator=None if key is None else key.integrator,
            address=_address(),
            object=operation,
            request_id=app_ctx.g.request_id,
            error_code=Unauthenticated.error_code,
        )
        self._store_limited(self._auth_limiter, ("address", event.address), event)

    def _record_read(self) -> None:
        g = app_ctx.g
        caller: Caller = g.caller
        if not caller.sees_payloads:
            return
        note = self._note(READ_PAYLOAD)
        event = note.event(Outcome.OK)
        for object_id in g.get("audit_reads", (note.object_id or "logs",)):
            if self._read_limiter.admits((caller.subject, object_id), each := replace(event, object=object_id)):
                self._enqueue(new_event_id(), each)

    def _store_limited(self, limiter: EventLimiter, kind: Any, event: AuditEvent) -> None:
        if limiter.admits(kind, event):
            self._store_or_enqueue(new_event_id(), event)

    def _store_or_enqueue(self, event_id: str, event: AuditEvent, *, is_begun: bool = False) -> None:
        """Store an event; if MongoDB does not reply, later: of a write, it is stored already that it has begun."""
        try:
            self._store.complete(event_id, event) if is_begun else self._store.add(event, event_id)
        except (Unavailable, OutcomeUnknown):
            self._enqueue(event_id, event, is_begun=is_begun)
        except BucketError as error:
            structlog.get_logger().error("an audit event cannot be stored", reason=error.message)

    def _enqueue(self, event_id: str, event: AuditEvent, *, is_begun: bool = False) -> None:
        with self._queue_lock:
            if len(self._queue) < _QUEUE_MAX:
                self._queue.append((event_id, event, is_begun))
            else:
                self._dropped += 1


def _address() -> str | None:
    address = client_address()
    return None if address is None else str(address)


def _outcome_of(status: int, error_code: str | None) -> Outcome:
    if status < HTTPStatus.BAD_REQUEST:
        return Outcome.OK
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome.REFUSED
    return Outcome.UNKNOWN if error_code in _NOT_KNOWN else Outcome.FAILED
