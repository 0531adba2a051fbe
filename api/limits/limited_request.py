"""The limit of the current request: taken before it is read, settled after it is answered, shown in its headers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

import flask
from flask.globals import app_ctx

from api.http.middleware import AfterRoute, BeforeRoute
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

    ``polled`` names what its path polls: the id of a run, a consumer, or the feed.
    ``cost`` is what a poll costs, once its reply is known: 1 unless its reply was noted, and it came as it was told to.
    """

    limiter: RateLimiter
    bucket: TokenBucket
    came_at_s: float
    polled: str
    cost: int = 1
    is_noted: bool = False
    was_due: bool = False

    def note_hint(self, polled: str, poll_after_ms: int) -> None:
        """Note the hint of this reply: the request costs nothing unless it came earlier than the hint before it said.

        Only the first note counts.
        """
        if not self.is_noted:
            due_at_s = self._due_at_s(polled)
            self._note(polled, poll_after_ms, is_free=due_at_s is None or self._is_due_since(due_at_s))

    def note_end(self, polled: str, finished_at: Callable[[], datetime | None]) -> None:
        """Note that this reply shows the end of a run: it costs nothing if the caller sees a recent end first here.

        ``finished_at`` is only called if the caller has not seen it here before.
        """
        if not self.is_noted:
            due_at_s = self._due_at_s(polled)
            is_free = self._is_recent(finished_at()) if due_at_s is None else self._is_due_since(due_at_s)
            self._note(polled, None, is_free=is_free)

    def take_due(self) -> bool:
        """Return whether this caller was asked to poll this again by now: then not even an empty bucket refuses it.

        This works once: if the reply gives no new hint, what is polled is not due any more.
        """
        due_at_s = self._due_at_s(self.polled)
        if due_at_s is None or due_at_s > self.came_at_s:
            return False
        self.was_due = True
        self.limiter.hints.remember(self._key(self.polled), self.came_at_s, _WITHOUT_REPLY_MS)
        return True

    def _key(self, polled: str) -> int:
        return hash((self.bucket.caller, polled))

    def _due_at_s(self, polled: str) -> float | None:
        return self.limiter.hints.due_at_s(self._key(polled))

    def _is_due_since(self, due_at_s: float) -> bool:
        return self.was_due or due_at_s <= self.came_at_s

    def _is_recent(self, ended_at: datetime | None) -> bool:
        now = self.limiter.now_or_none()
        return ended_at is not None and now is not None and now - ended_at < RECENT

    def _note(self, polled: str, poll_after_ms: int | None, *, is_free: bool) -> None:
        self.is_noted, self.cost = True, int(not is_free)
        self.limiter.hints.remember(self._key(polled), self.came_at_s, poll_after_ms)


def limit_hooks(app: flask.Flask, limiter: RateLimiter, *, with_draft_headers: bool) -> tuple[BeforeRoute, AfterRoute]:
    """Return what limits a request of ``app`` once its caller is known, and what shows the limit in its response."""
    classes = classes_by_rule(app)

    def take(request: flask.Request, g: Any) -> None:
        rule = request.url_rule
        if rule is None or (limit_class := classes.get((rule.rule, request.method))) is None:
            return
        caller = g.caller
        bucket = None if caller is PUBLIC_CALLER else limiter.bucket_of(caller, limit_class)
        if bucket is None:
            return
        limited = g.limited = LimitedRequest(limiter, bucket, boottime_s(), _polled_by(request))
        if limit_class is not LimitClass.POLL:
            limiter.take(bucket)
        elif not (_polls_one_resource(request) and limited.take_due()):
            limited.cost = 0  # a refused one costs nothing
            limiter.check_poll(bucket, limited.came_at_s)
            limited.cost = 1

    def show(response: flask.Response, _: flask.Request, g: Any) -> None:
        limited: LimitedRequest | None = g.get("limited")
        if limited is None:
            return
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

    return take, show


def _polls_one_resource(request: flask.Request) -> bool:
    """Return whether the path names what the hint of the reply is about: not for many runs, nor for one output."""
    return request.method != "POST" and "step" not in (request.view_args or ())


def _polled_by(request: flask.Request) -> str:
    return next(iter((request.view_args or {}).values()), "changes")


def current_limit() -> LimitedRequest | None:
    """Return the current request as one that has a limit; None if it has none."""
    limited: LimitedRequest | None = app_ctx.g.get("limited")
    return limited


def charge_batch(items: int) -> None:
    """Take the rest of what a batch costs, which is a submit for each item; raises RateLimited."""
    limited = current_limit()
    if limited is not None and items > 1:
        limited.limiter.take(limited.bucket, items, already_taken=1)


def note_hint(poll_after_ms: int, polled: str | None = None) -> None:
    """Note the hint of this reply, if the request has a limit; without ``polled`` it is of what the path polls."""
    limited = current_limit()
    if limited is not None:
        limited.note_hint(polled or limited.polled, poll_after_ms)
