"""Polls and long polls of one execution: one Redis round trip whose bytes are sent unparsed, else MongoDB.

It never guesses: if Redis has no view and MongoDB does not reply, the status is 503; it is 404 only if MongoDB has no
such run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

import flask
import orjson
from flask.globals import request_ctx

from api.hints.poll_hints import HintedView, ViewHints
from api.http.cache_control import LIVE_POLL_HEADERS, PRIVATE_NO_CACHE_HEADERS
from api.http.etags import RawResponse, etag_of, has_if_none_match_rev, if_none_match_rev, matches_if_none_match
from api.http.long_poll import LongPoller, LongPollResult
from api.http.version_prefix import request_prefix
from api.http.wait_preference import WaitPreference, parse_wait_preference
from api.limits.limited_request import current_limit
from api.polling.execution_reader import ExecutionReader, check_execution_id
from api.polling.field_selection import FieldSelection, has_newer_lines, parse_field_selection
from shared.bootstrap import Services
from shared.clock import boottime_s
from shared.domain.access.caller import Caller, Scope
from shared.domain.execution import NEWEST_LOG_LINES, Execution, ExecutionRecord, LogPageQuery
from shared.domain.status import ExecutionStatus, StepStatus
from shared.errors import ExecutionCancelled, ExecutionErased, ExecutionFailed, NotFound
from shared.ids import AGENT_NAME_PATTERN
from shared.live.qualified_id import qualified_id
from shared.live.render import parse_header
from shared.live.view_trailer import split_trailer
from shared.live.views import FINAL_VIEW_TTL_S, VIEW_STALE_AFTER_S, RenderedView
from shared.timestamps import format_rfc3339

# What the reply about a result shows of a run that is not done.
_NOT_DONE: Final = FieldSelection(fields=frozenset({"progress", "current_step", "waiting_for", "poll_after_ms"}))
_FINISHED_AT: Final = re.compile(rb',"finished_at":"([^"]+)"')
_POLL_OPTIONS: Final = ("QUERY_STRING", "HTTP_IF_NONE_MATCH", "HTTP_PREFER")


@dataclass(frozen=True, slots=True)
class FetchedView:
    """A rendered view, and whether it was read from MongoDB just now (``is_from_store``)."""

    view: bytes
    is_from_store: bool = False


class PollHandler:
    """Replies to polls of one execution and of the outputs of its steps, from Redis first, then from MongoDB."""

    def __init__(
        self,
        services: Services,
        reader: ExecutionReader,
        view_hints: ViewHints,
        long_poller: LongPoller,
        view_age_max_s: float = VIEW_STALE_AFTER_S,
    ) -> None:
        self._views = services.views
        self._view_age_max_s = view_age_max_s
        self._view_lifetime_s = services.settings.lease_s / 2
        self._reader = reader
        self._view_hints = view_hints
        self._long_poller = long_poller

    def poll(self, caller: Caller, execution_id: str) -> flask.Response:
        """Return the present view of an execution, or 304 if the caller has this revision (``If-None-Match``)."""
        check_execution_id(execution_id)
        integrator = self._reader.integrator_of(caller.scope, execution_id)
        # One check for all options: most polls have none.
        if caller.sees_payloads and not any(map(request_ctx.request.environ.get, _POLL_OPTIONS)):
            return view_response(self._view_hints.add_to(self._fetch_view(integrator, execution_id).view))
        selection, preference = parse_field_selection(caller), parse_wait_preference()
        known_rev = if_none_match_rev(execution_id)
        if not preference.wait_s:
            return self._respond(integrator, self._fetch_view(integrator, execution_id, known_rev).view, selection)
        held = self.hold(integrator, execution_id, preference, selection.page, known_rev)
        response = self._respond(integrator, held.value.view, selection)
        return preference.mark_applied(response, is_granted=held.is_granted)

    def hold(
        self,
        integrator: str,
        execution_id: str,
        preference: WaitPreference,
        page: LogPageQuery = NEWEST_LOG_LINES,
        min_rev: int = 0,
        *,
        is_new: bool = False,
    ) -> LongPollResult[FetchedView]:
        """Long poll: return the view as soon as it has something new for the caller, or after the preferred wait.

        ``is_new`` says that the run was accepted just now, so that a first look would be in vain.
        """
        return self._long_poller.hold(
            qualified_id(integrator, execution_id),
            preference.wait_s,
            partial(self._fetch_view, integrator, execution_id, min_rev),
            _change_check(preference, page),
            fresh_for_s=partial(self._fresh_for_s, integrator, execution_id),
            is_new=is_new,
        )

    def respond_with_result(self, scope: Scope, execution_id: str) -> flask.Response:
        """Return the result alone, or 202 while the run is not done; raises ExecutionFailed or ExecutionCancelled."""
        check_execution_id(execution_id)
        preference = replace(parse_wait_preference(), until_done=True)
        held = self.hold(self._reader.integrator_of(scope, execution_id), execution_id, preference)
        hinted = self._view_hints.add_to(held.value.view)
        view = orjson.loads(hinted.json)
        _note_for_limits(hinted)
        if hinted.head.is_done:
            if "erased_at" in view:
                raise ExecutionErased(f"the content of execution {execution_id} was erased at {view['erased_at']}")
            if view["error"] is not None:
                refusal = ExecutionCancelled if view["status"] == ExecutionStatus.CANCELLED else ExecutionFailed
                message = f"execution {execution_id} is {view['status']} and has no result: {view['error']['message']}"
                raise refusal(message, error=view["error"])
            body = orjson.dumps(view["result"])
            response = flask.Response(body, 200, PRIVATE_NO_CACHE_HEADERS, mimetype="application/json")
        else:
            response = _poll_response(hinted, _NOT_DONE.select(view), 202)
            response.headers["Location"] = f"{request_prefix()}/executions/{execution_id}/result"
            del response.headers["ETag"]  # it names the run, not this reply
        return preference.mark_applied(response, is_granted=held.is_granted)

    def store_view(self, record: ExecutionRecord, as_of: float) -> bytes:
        """Return the view of a record that was read since ``as_of`` (``boottime_s``), and store it in Redis.

        So no later poll shows an older revision. After a pause it is not stored: a newer one may have come and gone.
        """
        run, view = record.execution, self._reader.render(record)
        if boottime_s() - as_of > self._view_age_max_s:
            self._drop_older_view(record)
        else:
            rendered = RenderedView(run.integrator, run.id, view, run.rev, run.is_done)
            self._reader.try_redis(lambda: self._views.fill(rendered))
        return view

    def _drop_older_view(self, record: ExecutionRecord) -> None:
        run = record.execution
        self._reader.try_redis(lambda: self._views.drop_older(run.integrator, run.id, run.rev))

    def respond_with_view(self, view: bytes, status: int, warnings: Sequence[str]) -> flask.Response:
        """Return the poll of a run that was just written, as ``view`` shows it."""
        return view_response(self._view_hints.add_to(view), status, warnings)

    def respond_with_input(self, scope: Scope, execution_id: str) -> flask.Response:
        """Return the input of a run, ``***`` in its marked fields; raises ExecutionNotFound and ExecutionErased."""
        check_execution_id(execution_id)
        execution = self._reader.read(scope, execution_id).execution
        if execution.erased_at is not None:
            raise _erased_error(execution)
        return flask.Response(execution.input, 200, PRIVATE_NO_CACHE_HEADERS, mimetype="application/json")

    def respond_with_output(self, scope: Scope, execution_id: str, step: str) -> flask.Response:
        """Return the output of a completed step; raises NotFound if the step has none, and ExecutionNotFound."""
        check_execution_id(execution_id)
        if not AGENT_NAME_PATTERN.fullmatch(step):
            raise NotFound(f"execution {execution_id} has no step {step[:64]!r}: no step can have this id")
        integrator = self._reader.integrator_of(scope, execution_id)
        output = self._reader.try_redis(lambda: self._views.get_output(integrator, execution_id, step))
        if output is None:
            record = self._reader.read(integrator, execution_id, outputs=(step,))
            try:
                output = _output_in(record, step)
            except NotFound:  # the caller may have seen it before a failover
                output = _output_in(self._reader.read(integrator, execution_id, outputs=(step,), causal=True), step)
        return flask.Response(output, 200, PRIVATE_NO_CACHE_HEADERS, mimetype="application/json")

    def _respond(self, integrator: str, view: bytes, selection: FieldSelection) -> flask.Response:
        """Return the selected fields and log lines, or 304; lines that the view lacks come from MongoDB."""
        hinted = self._view_hints.add_to(view)
        is_known = matches_if_none_match(hinted.head)
        if is_known and selection.page.after is None:
            return _poll_response(hinted, None, 304)
        if selection.is_all:
            return view_response(hinted)
        parsed = orjson.loads(hinted.json)
        if is_known and not has_newer_lines(parsed, selection.page):
            return _poll_response(hinted, None, 304)
        body = selection.select_from_newest(parsed)
        if body is None:
            head = hinted.head
            record = self._reader.read(integrator, head.execution_id, page=selection.page, min_rev=head.rev)
            if record.execution.rev > head.rev:
                self._drop_older_view(record)
            hinted = self._view_hints.add_to(self._reader.render(record, selection.page))
            body = selection.select(orjson.loads(hinted.json))
        return _poll_response(hinted, body, 200)

    def _fresh_for_s(self, integrator: str, execution_id: str, latest: FetchedView) -> float:
        """Return how long a long poll may trust a view: until its TTL is over, as its worker may have died since."""
        ttl_s = None
        if not latest.is_from_store:
            ttl_s = self._reader.try_redis(lambda: self._views.ttl_s(integrator, execution_id))
        if ttl_s is None:
            return self._view_lifetime_s
        # That of a final view, which another poll has stored meanwhile, without a wake-up: read again at once.
        return 0.0 if ttl_s > FINAL_VIEW_TTL_S / 2 else min(ttl_s, self._view_lifetime_s)

    def _fetch_view(
        self, integrator: str, execution_id: str, min_rev: int = 0, carried: bytes | None = None
    ) -> FetchedView:
        """Return the rendered view with the newest log lines, never of a revision below ``min_rev``.

        A view that a wake-up has ``carried`` is as it was stored in Redis a moment ago.
        """
        view = carried or self._reader.try_redis(lambda: self._views.get(integrator, execution_id))
        if view is not None and (not min_rev or min_rev <= parse_header(view).rev):
            return FetchedView(view)
        as_of = boottime_s()
        record = self._reader.read(integrator, execution_id, page=NEWEST_LOG_LINES, min_rev=min_rev)
        return FetchedView(self.store_view(record, as_of), is_from_store=True)


def view_response(view: HintedView, status: int = 200, warnings: Sequence[str] = ()) -> flask.Response:
    """Return the response of a poll with all of a view, with ``warnings`` as its last field if there are any."""
    body = view.json
    if warnings:
        body = body[:-1] + b"," + orjson.dumps({"warnings": warnings})[1:]
    return _poll_response(view, body, status)


def _poll_response(view: HintedView, body: bytes | None, status: int) -> flask.Response:
    """Return the response of a poll with its ETag and ``Retry-After``; ``body`` is None for a 304."""
    _note_for_limits(view)
    cache_headers = PRIVATE_NO_CACHE_HEADERS if view.head.is_done else LIVE_POLL_HEADERS
    headers = [("ETag", etag_of(view.head.execution_id, view.head.rev)), *cache_headers.items()]
    if body is not None:
        headers.append(("Content-Type", "application/json"))
    if view.hints.retry_after_s is not None:
        headers.append(("Retry-After", str(view.hints.retry_after_s)))
    return RawResponse(body, status, headers)


def _note_for_limits(view: HintedView) -> None:
    """Note the hint that a caller gets, or that it sees the end: who polls as told is never limited."""
    limited = current_limit()
    if limited is None:
        return
    if view.hints.poll_after_ms is not None:
        limited.note_hint(view.head.execution_id, view.hints.poll_after_ms)
    else:
        limited.note_end(view.head.execution_id, partial(_finished_at, view.body))


def _finished_at(body: bytes) -> datetime | None:
    finished = _FINISHED_AT.search(body)
    return None if finished is None else datetime.fromisoformat(finished[1].decode())


def _change_check(preference: WaitPreference, page: LogPageQuery) -> Callable[[FetchedView], bool]:
    """Return a function that says whether a view should be sent now; the view of a finished run always should.

    Others should if they have a revision that the caller does not have, or a change after the first read.
    """
    first_rev: int | None = None

    def has_changed(fetched: FetchedView) -> bool:
        nonlocal first_rev
        head = parse_header(fetched.view)
        if head.is_done or preference.until_done:
            return head.is_done
        if page.after is not None and has_newer_lines(orjson.loads(split_trailer(fetched.view)[0] + b"}"), page):
            return True
        if has_if_none_match_rev():
            return not matches_if_none_match(head)
        first_rev = head.rev if first_rev is None else first_rev
        return head.rev != first_rev

    return has_changed


def _output_in(record: ExecutionRecord, step_id: str) -> bytes:
    step = record.execution.steps.get(step_id)
    if step is None:
        raise NotFound(f"execution {record.execution.id} has no step {step_id[:64]!r}")
    if record.execution.erased_at is not None:
        raise _erased_error(record.execution)
    if step.status is StepStatus.COMPLETED and step_id in record.outputs:
        return record.outputs[step_id]
    if step.status.is_final:
        raise NotFound(f"step {step_id} has no output and will have none: it is {step.status}")
    raise NotFound(f"step {step_id} has no output yet: it is {step.status}; poll the run until it is completed")


def _erased_error(execution: Execution) -> ExecutionErased:
    return ExecutionErased(
        f"the content of execution {execution.id} was erased at {format_rfc3339(execution.erased_at)}"
    )
