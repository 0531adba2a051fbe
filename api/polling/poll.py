"""GET an execution: one Redis round trip whose bytes are sent unparsed, MongoDB where Redis has forgotten.

Never a guess: where Redis has no view and MongoDB does not answer it is 503, and 404 only where MongoDB said so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final, TypeVar

import flask
import orjson
import redis
import structlog
from flask.globals import request_ctx

from api.background import Keeper
from api.http.cache_control import POLLED
from api.http.etags import NOT_MODIFIED, etag_of, is_known, reply, rev_known
from api.http.long_poll import Held
from api.http.request_body import Blueprint
from api.http.wait_preference import patience_asked, patience_preferred
from api.polling.change_check import News
from api.polling.field_selection import Portion, lies_beyond, portion_asked
from api.submission.acceptor import Accepted
from shared.bootstrap import Services
from shared.domain.execution import NEWEST, PUBLIC, Page, Record
from shared.domain.status import StepStatus
from shared.errors import BucketError, ExecutionExpired, ExecutionNotFound, InternalError, NotFound
from shared.ids import AGENT_NAME, EXECUTION_ID, second_of
from shared.live.render import head_of, render, result_steps

T = TypeVar("T")

_REFINED_BY: Final = ("QUERY_STRING", "HTTP_IF_NONE_MATCH", "HTTP_PREFER")


def blueprint(services: Services, keeper: Keeper) -> Blueprint:
    """Answer the routes that are polled."""
    blp = Blueprint("polls", __name__, description="Poll executions until they are done")
    polls = Polls(services, keeper)

    @blp.route("/execution-logs/<execution_id>")
    def execution_logs(execution_id: str) -> flask.Response:
        """Poll an execution: where it stands, its result, its newest log lines."""
        return polls.poll(execution_id)

    @blp.route("/executions/<execution_id>")
    def execution(execution_id: str) -> flask.Response:
        """Poll an execution; the same as /execution-logs/{id}."""
        return polls.poll(execution_id)

    @blp.route("/executions/<execution_id>/outputs/<step>")
    def output(execution_id: str, step: str) -> flask.Response:
        """Get one step's output, whole."""
        return polls.output(execution_id, step)

    return blp


@dataclass(frozen=True, slots=True)
class Seen:
    """A rendered poll, and whether it was read ``from_store`` this very moment."""

    view: bytes
    from_store: bool = False


class Polls:
    """Answers polls from Redis first, then from MongoDB."""

    def __init__(self, services: Services, keeper: Keeper) -> None:
        self._services = services
        self._keeper = keeper

    def poll(self, execution_id: str) -> flask.Response:
        """Answer an execution as it stands, or 304 where the caller has it already."""
        check_id(execution_id)
        if not any(map(request_ctx.request.environ.get, _REFINED_BY)):  # looked at once: most polls are plain
            return self._whole(self._look(execution_id).view)
        portion, patience, known = portion_asked(), patience_asked(), rev_known(execution_id)
        if patience.wait_s:
            held = self._hold(execution_id, News(patience, portion.page), patience.wait_s, known)
            return patience.note(self._answer_to(held.seen.view, portion), granted=held.granted)
        return self._answer_to(self._look(execution_id, known).view, portion)

    def when_done(self, accepted: Accepted) -> flask.Response:
        """Answer a submit that prefers to wait with the run's last poll, or as it was ``accepted`` when its time is up.

        Whatever happens meanwhile, the run is accepted.
        """
        patience = patience_preferred()
        if not patience.wait_s:
            return accepted.response
        news = News(replace(patience, until_done=True), NEWEST)
        try:
            held = self._hold(accepted.execution_id, news, patience.wait_s)
            if not head_of(held.seen.view).done:
                return patience.note(self._as_it_stands(accepted, held.seen.view), granted=held.granted)
            answer = self._whole(held.seen.view)
        except BucketError as away:
            structlog.get_logger().warning("a submit was not held to its end", reason=away.message)
            return accepted.response
        return patience.note(_in_place_of(accepted, answer), granted=held.granted)

    def _as_it_stands(self, accepted: Accepted, view: bytes) -> flask.Response:
        """The answer to a submit that was held in vain: when to come back is reckoned from now."""
        shown = self._keeper.shown(view)
        head, hints = shown.head, shown.hints
        moved = {"status": head.status, "rev": head.rev, "poll_after_ms": hints.poll_after_ms}
        accepted.response.set_data(orjson.dumps(orjson.loads(accepted.response.get_data()) | moved))
        accepted.response.headers["ETag"] = etag_of(head.execution_id, head.rev)
        accepted.response.headers["Retry-After"] = str(hints.retry_after_s)
        return accepted.response

    def shown(self, record: Record, status: int, warnings: Sequence[str] = ()) -> flask.Response:
        """Answer a run as it has just been written, with the fields of a poll and what there is to warn of."""
        return _warning(self._whole(self.rendered(record, NEWEST), status), warnings)

    def output(self, execution_id: str, step: str) -> flask.Response:
        """Answer one step's output as its agent returned it."""
        check_id(execution_id)
        if not AGENT_NAME.fullmatch(step):
            raise NotFound(f"execution {execution_id} has no step {step[:64]!r}: no step can have this id")
        found = self._kept(lambda: self._services.views.get_output(execution_id, step))
        if found is None:
            try:
                found = _output_in(self.read(execution_id, outputs=(step,)), step)
            except NotFound:  # of which the caller may have seen that it is there
                found = _output_in(self.read(execution_id, outputs=(step,), newest=True), step)
        return flask.Response(found, 200, POLLED, mimetype="application/json")

    def read(
        self,
        execution_id: str,
        *,
        outputs: Iterable[str] = (),
        page: Page | None = None,
        newest: bool = False,
        known: int = 0,
    ) -> Record:
        """Answer a run from MongoDB with those of its large outputs; raises what a caller is told of one not there.

        ``newest`` waits for a majority to have what the primary has. So does who would be told that there is none, or
        of before the revision that is ``known``: a primary just elected shows for a moment what a majority had a while
        ago.
        """
        read = partial(self._services.store.read, PUBLIC, execution_id, outputs=tuple(outputs), page=page)
        record = read(newest=newest)
        if not newest and (record is None or record.execution.rev < known):
            record = read(newest=True)
        if record is None:
            self.check_kept(execution_id)
            raise ExecutionNotFound(f"execution {execution_id!r} was not found")
        return record

    def check_kept(self, execution_id: str) -> None:
        """Raise ExecutionExpired for the id of a run that is older than runs are kept."""
        days = self._services.settings.retention_days
        now = self._services.clock.glance()
        if days is not None and now is not None and now - second_of(execution_id) > timedelta(days=days):
            kept = "1 day" if days == 1 else f"{days} days"
            raise ExecutionExpired(f"execution {execution_id} is gone: runs are kept for {kept}; ask no more for it")

    def _answer_to(self, view: bytes, portion: Portion) -> flask.Response:
        if not portion.is_all:
            return self._part(view, portion)
        shown = self._keeper.shown(view)
        return reply(shown, None, NOT_MODIFIED) if is_known(shown.head) else reply(shown, shown.json, 200)

    def _whole(self, view: bytes, status: int = 200) -> flask.Response:
        shown = self._keeper.shown(view)
        return reply(shown, shown.json, status)

    def _part(self, view: bytes, portion: Portion) -> flask.Response:
        """Answer no more than was asked for; the lines that the view lacks come from MongoDB."""
        shown = self._keeper.shown(view)
        parsed = orjson.loads(shown.json)
        if is_known(shown.head) and not lies_beyond(parsed, portion.page):
            return reply(shown, None, NOT_MODIFIED)
        body = portion.of_view(parsed)
        if body is None:
            record = self.read(shown.head.execution_id, page=portion.page, known=shown.head.rev)
            shown = self._keeper.shown(self.rendered(record, portion.page))
            body = portion.of(orjson.loads(shown.json))
        return reply(shown, body, 200)

    def _hold(self, execution_id: str, news: News, wait_s: float, known: int = 0) -> Held[Seen]:
        return self._keeper.holder.hold(
            execution_id, wait_s, lambda: self._look(execution_id, known), lambda seen: news.is_in(seen.view),
            good_for_s=lambda seen: self._good_for_s(execution_id, seen),
        )  # fmt: skip

    def _good_for_s(self, execution_id: str, seen: Seen) -> float:
        """How long a held poll may believe what it saw: as long as any other, where a worker died before it told."""
        left_s = None if seen.from_store else self._kept(lambda: self._services.views.left_s(execution_id))
        return self._services.settings.lease_s / 2 if left_s is None else left_s

    def _look(self, execution_id: str, known: int = 0) -> Seen:
        """The rendered poll, with the newest log lines, and never one of before the revision that is ``known``."""
        views = self._services.views
        view = self._kept(lambda: views.get(execution_id))
        if view is not None and (not known or known <= head_of(view).rev):
            return Seen(view)
        record = self.read(execution_id, page=NEWEST, known=known)
        view = self.rendered(record, NEWEST)
        self._kept(lambda: views.fill(execution_id, view, final=record.execution.done))
        return Seen(view, from_store=True)

    def rendered(self, record: Record, page: Page = NEWEST) -> bytes:
        """Answer the poll of ``record``; large outputs that its result needs are fetched."""
        missing = set(result_steps(record.execution)) - set(record.outputs)
        if missing:
            whole = self.read(record.execution.id, outputs=missing, page=page, known=record.execution.rev)
            record = replace(record, outputs=whole.outputs)
        view = render(record, page)
        if view is None:
            raise InternalError(f"an output of {record.execution.id} is not where it was kept")
        return view

    def _kept(self, ask: Callable[[], T]) -> T | None:
        """What ``ask`` finds in Redis; None where that does not answer."""
        if not self._keeper.pulse.last.connected:
            return None  # known to be away: waiting for it would make each poll slow
        try:
            return ask()
        except redis.RedisError as away:
            structlog.get_logger().warning("Redis did not answer a poll", reason=str(away))
            return None


def check_id(execution_id: str) -> None:
    """Raise ExecutionNotFound for what cannot be an id: it never reaches a store."""
    if execution_id == "None":
        raise ExecutionNotFound(
            "execution 'None' was not found: the submit was refused and gave no id; look at its status and detail"
        )
    if not EXECUTION_ID.fullmatch(execution_id):
        raise ExecutionNotFound(f"execution {execution_id[:64]!r} was not found: this is no id that Bucket made")


def _in_place_of(accepted: Accepted, answer: flask.Response) -> flask.Response:
    """The last poll as the answer to a submit, which keeps what only the submit could tell."""
    headers = accepted.response.headers
    for name in ("Location", "Idempotency-Replayed", "Cache-Control"):
        if name in headers:
            answer.headers[name] = headers[name]
    return _warning(answer, accepted.warnings)


def _warning(answer: flask.Response, warnings: Sequence[str]) -> flask.Response:
    """The poll ``answer``, with ``warnings`` as its last field where there are any."""
    if warnings:
        answer.set_data(answer.get_data()[:-1] + b"," + orjson.dumps({"warnings": warnings})[1:])
    return answer


def _output_in(record: Record, step: str) -> bytes:
    found = record.execution.steps.get(step)
    if found is None:
        raise NotFound(f"execution {record.execution.id} has no step {step[:64]!r}")
    if found.status is not StepStatus.COMPLETED or step not in record.outputs:
        if found.status.is_final:
            raise NotFound(f"step {step} has no output and will have none: it is {found.status}")
        raise NotFound(f"step {step} has no output yet: it is {found.status}; poll the run until it is completed")
    return record.outputs[step]
