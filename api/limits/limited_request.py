"""The limit of the current request: taken before it is read, settled after it is answered, shown in its headers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

import flask
from flask.globals import app_ctx, request_ctx

from api.limits.hint_memory import WINDOW_S
from api.limits.rate_limiter import RateLimiter
from api.limits.route_classes import classes_by_rule
from api.limits.token_bucket import TokenBucket
from shared.clock import boottime_s
from shared.domain.access.caller import PUBLIC_CALLER
from shared.limits import LimitClass

RECENT: Final = timedelta(seconds=WINDOW_S)
_FIRST_SERVER_ERROR: Final = int(HTTPStatus.INTERNAL_SERVER_ERROR)
_WITHOUT_REPLY_MS: Final = 1_000


@dataclass(slots=True, eq=False)
class LimitedRequest:
    """A request of a caller who has a limit; ``came_at_s`` is :func:`shared.clock.boottime_s`.

    ``cost`` is what a poll costs, once its reply is known: 1 unless its reply was noted, and it came as it was told to.
    """

    limiter: RateLimiter
    bucket: TokenBucket
    came_at_s: float
    cost: int = 1
    is_noted: bool = False
    was_due: bool = False

    def note(self, *, is_as_told: bool) -> None:
        """Note once whether the request came no earlier than it was told to."""
        self.is_noted, self.cost = True, int(not is_as_told)

    def poll_key(self, polled: str) -> int:
        """Return the key under which the hint of what is polled is remembered for this caller."""
        return hash((self.bucket.caller, polled))


def install_limits(app: flask.Flask, limiter: RateLimiter, *, with_draft_headers: bool) -> None:
    """Limit the requests of ``app``; call it after the authentication is installed, whose caller it needs."""
    classes = classes_by_rule(app)

    def take() -> None:
        request, g = request_ctx.request, app_ctx.g
        rule = request.url_rule
        if rule is None or (limit_class := classes.get((rule.rule, request.method))) is None:
            return
        caller = g.caller
        bucket = None if caller is PUBLIC_CALLER else limiter.bucket_of(caller, limit_class)
        if bucket is None:
            return
        limited = g.limited = LimitedRequest(limiter, bucket, boottime_s())
        if limit_class is not LimitClass.POLL:
            limiter.take(bucket)
        elif not _is_due(limited):
            limited.cost = 0  # a refused one costs nothing
            limiter.check_poll(bucket, limited.came_at_s)
            limited.cost = 1

    def show(response: flask.Response) -> flask.Response:
        limited: LimitedRequest | None = app_ctx.g.get("limited")
        if limited is None:
            return response
        bucket = limited.bucket
        if bucket.limit_class is LimitClass.POLL and limited.cost and response.status_code < _FIRST_SERVER_ERROR:
            limiter.charge_poll(bucket, limited.came_at_s)
        limit, tokens = bucket.limit, bucket.level(boottime_s())
        remaining = max(int(tokens), 0)
        reset_s = math.ceil((limit.burst - tokens) / limit.per_s)
        headers = response.headers
        headers.add("X-RateLimit-Limit", str(limit.burst))
        headers.add("X-RateLimit-Remaining", str(remaining))
        headers.add("X-RateLimit-Reset", str(reset_s))
        if with_draft_headers:
            name, window_s = bucket.limit_class, math.ceil(limit.burst / limit.per_s)
            headers.add("RateLimit-Policy", f'"{name}";q={limit.burst};w={window_s}')
            headers.add("RateLimit", f'"{name}";r={remaining};t={reset_s}')
        return response

    app.before_request(take)
    app.after_request(show)


def _is_due(limited: LimitedRequest) -> bool:
    """Return whether this caller was asked to poll this again by now: then not even an empty bucket refuses it.

    It can come so only once: if the reply gives no new hint, what is polled is not due any more.
    """
    request = request_ctx.request
    if request.method == "POST" or "step" in (request.view_args or ()):
        return False
    hints, key = limited.limiter.hints, limited.poll_key(polled_name())
    due_at_s = hints.due_at_s(key)
    if due_at_s is None or due_at_s > limited.came_at_s:
        return False
    limited.was_due = True
    hints.remember(key, limited.came_at_s, _WITHOUT_REPLY_MS)
    return True


def polled_name() -> str:
    """Return the name of what the current request polls: the id of a run, a consumer, or the feed."""
    return next(iter((request_ctx.request.view_args or {}).values()), "changes")


def charge_batch(items: int) -> None:
    """Take the rest of what a batch costs, which is a submit for each item; raises RateLimited."""
    limited: LimitedRequest | None = app_ctx.g.get("limited")
    if limited is not None and items > 1:
        limited.limiter.take(limited.bucket, items, already_taken=1)


def note_hint(polled: str, poll_after_ms: int) -> None:
    """Note the hint of this reply: the request costs nothing unless it came earlier than the hint before it said."""
    limited: LimitedRequest | None = app_ctx.g.get("limited")
    if limited is not None and not limited.is_noted:
        hints, key = limited.limiter.hints, limited.poll_key(polled)
        due_at_s = hints.due_at_s(key)
        limited.note(is_as_told=limited.was_due or due_at_s is None or due_at_s <= limited.came_at_s)
        hints.remember(key, limited.came_at_s, poll_after_ms)


def note_end(polled: str, finished_at: datetime | None) -> None:
    """Note that this reply shows the end of a run: it costs nothing if the caller sees a recent end the first time."""
    limited: LimitedRequest | None = app_ctx.g.get("limited")
    if limited is not None and not limited.is_noted:
        hints, key = limited.limiter.hints, limited.poll_key(polled)
        due_at_s, now = hints.due_at_s(key), limited.limiter.now_or_none()
        if due_at_s is None:
            is_recent = finished_at is not None and now is not None and now - finished_at < RECENT
            limited.note(is_as_told=is_recent)
        else:
            limited.note(is_as_told=limited.was_due or due_at_s <= limited.came_at_s)
        hints.remember(key, limited.came_at_s, None)


def is_limited() -> bool:
    """Return whether the current request has a limit, so that a note is worth its work."""
    return "limited" in app_ctx.g
