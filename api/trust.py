"""Composition of what says who may do what: authentication, the register of integrations, limits and the audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import flask

from api.audit import routes as audit
from api.audit.recorder import FLUSH_EVERY_S, AuditRecorder
from api.auth import routes as keys
from api.auth.authentication import Authenticator
from api.auth.integration_states import IntegrationStates
from api.auth.key_cache import REFRESH_EVERY_S, KeyCache
from api.auth.key_service import KeyService
from api.background import BackgroundTask
from api.http.middleware import RequestActivity, RequestHooks
from api.http.request_body import Blueprint
from api.integrations import routes as integrations
from api.integrations.integration_service import IntegrationService
from api.limits.limited_request import limit_hooks
from api.limits.rate_limiter import SETTLE_EVERY_S, RateLimiter
from shared.bootstrap import Services
from shared.domain.access.caller import Caller
from shared.errors import OutcomeUnknown, Unavailable
from shared.live.redis_monitor import RedisMonitor
from shared.live.shared_buckets import SharedBuckets
from shared.settings import Settings

if TYPE_CHECKING:
    from api.auth.tokens.token_verifier import JwtVerifier


class Trust:
    """The parts of one process; what only identified callers need is there only if the server requires keys."""

    def __init__(self, services: Services, monitor: RedisMonitor) -> None:
        settings = services.settings
        self._services = services
        self.keys = KeyCache(services.keys)
        self._states = IntegrationStates(services.integrations, is_required=settings.integrations == "required")
        self._tokens = _open_token_verifier(settings)
        self._limiter: RateLimiter | None = None
        self._recorder: AuditRecorder | None = None
        if settings.requires_key:
            buckets, clock = SharedBuckets(services.redis), services.clock
            self._limiter = RateLimiter(
                settings.rate_limits, buckets, lambda: monitor.last.is_connected, clock.now_or_none
            )
            self._recorder = AuditRecorder(services, self.keys)

    def blueprints(self) -> tuple[Blueprint, ...]:
        """Return the routes of keys, integrations and the audit."""
        service = IntegrationService(self._services, on_change=self._states.put, on_revoked=self.keys.put)
        return (
            keys.blueprint(self._services, KeyService(self._services, self.keys.put)),
            integrations.blueprint(service),
            audit.blueprint(self._services),
        )

    def install(self, app: flask.Flask, hooks: RequestHooks, everyone: Caller | None) -> None:
        """Check each request of ``app`` from now on; call it after all routes are registered.

        With ``everyone`` no request needs a key: that caller makes each.
        """
        authenticator = Authenticator(self._services, self.keys, self._tokens, integrations=self._states)
        hooks.add([authenticator.hook(app, everyone)])
        if self._limiter is not None:
            is_draft = self._services.settings.ratelimit_headers == "draft"
            take, show = limit_hooks(app, self._limiter, with_draft_headers=is_draft)
            hooks.add([take], [show])
        if self._recorder is not None:
            begin, end = self._recorder.hooks(app)
            hooks.add([begin], [end])  # begins last: what refuses a request before its route does, stands before it

    def record(self, action: str, caller: Caller) -> None:
        """Record in the audit, if there is one, what ``caller`` has done."""
        if self._recorder is not None:
            self._recorder.record(action, caller)

    def tasks(self) -> Iterator[BackgroundTask]:
        """Yield what the background threads have to do."""
        if self._services.settings.requires_key:
            # Two threads: what keeps one from being refreshed must not keep the other.
            for name, refresh in (("keys", self.keys.refresh), ("integrations", self._states.refresh)):
                yield BackgroundTask(
                    f"refresh_{name}", partial(self._refresh, refresh), lambda activity: activity.pause(REFRESH_EVERY_S)
                )
        if (tokens := self._tokens) is not None:
            # It waits for the network, and no request waits for it after a rest, so it does not pause like the others.
            yield BackgroundTask("refresh_signing_keys", tokens.source.refresh, lambda _: tokens.source.pause())
        if self._limiter is not None:
            yield BackgroundTask("settle_limits", self._limiter.settle, lambda activity: activity.pause(SETTLE_EVERY_S))
        if self._recorder is not None:
            yield BackgroundTask("store_audit", self._recorder.flush, self._pause_recorder)

    def _refresh(self, refresh: Callable[[datetime], None]) -> None:
        now = self._services.clock.now_or_none()
        # The thread that watches MongoDB says so if it is away; what is cached goes on.
        if now is not None:
            with suppress(Unavailable, OutcomeUnknown):
                refresh(now)

    def _pause_recorder(self, activity: RequestActivity) -> None:
        waits = self._recorder is not None and self._recorder.has_waiting
        activity.pause(FLUSH_EVERY_S, may_rest=not waits)


def _open_token_verifier(settings: Settings) -> JwtVerifier | None:
    if not settings.takes_tokens:
        return None
    from api.auth.tokens.token_verifier import open_verifier  # it loads cryptography: an API without an issuer does not

    return open_verifier(settings)
