"""Background threads of an API process: requests only read the values that these threads have fetched.

While no requests come they mostly rest (:class:`api.http.middleware.RequestActivity`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog

from api.audit.recorder import FLUSH_EVERY_S, AuditRecorder
from api.auth.integration_states import IntegrationStates
from api.auth.key_cache import REFRESH_EVERY_S, KeyCache
from api.hints.schedule_cache import DurationCache
from api.http.middleware import RequestActivity
from api.limits.rate_limiter import SETTLE_EVERY_S, RateLimiter
from api.limits.stored_bytes import READ_EVERY_S, StoredBytes
from api.store_watcher import StoreWatcher
from api.submission.withdrawals import Withdrawals
from shared.live.redis_monitor import RedisMonitor

if TYPE_CHECKING:
    from api.auth.tokens.signing_key_source import SigningKeySource  # it loads cryptography

_EVERY_S: Final = 0.1
_FIRST_LOOK_MAX_S: Final = 10.0


def start_background(
    activity: RequestActivity,
    monitor: RedisMonitor,
    *,
    store_watcher: StoreWatcher,
    durations: DurationCache,
    withdrawals: Withdrawals,
    key_cache: KeyCache,
    integration_states: IntegrationStates,
    stored_bytes: StoredBytes,
    rate_limiter: RateLimiter | None,
    recorder: AuditRecorder | None = None,
    signing_keys: SigningKeySource | None = None,
) -> None:
    """Start the threads that watch the stores, refresh durations and withdraw lost inserts; they end with the process.

    Call this after the fork, in the process that serves the requests, before it listens: it returns once MongoDB is
    prepared or is known to be away, so that the first request finds that out. A long build of an index does not hold
    it up.
    """
    has_looked = threading.Event()

    def watch_store() -> None:
        try:
            store_watcher.check()
        finally:
            has_looked.set()

    def refresh_durations() -> None:
        if monitor.last.is_connected:
            durations.refresh()

    def refresh_keys() -> None:
        now = store_watcher.now_or_none()
        if now is not None:
            key_cache.refresh(now)
            integration_states.refresh(now)

    def pause_watch() -> None:
        # An outage's end is noticed as soon as ever, and withdrawals wait for it.
        activity.pause(_EVERY_S, may_rest=store_watcher.is_settled)

    monitor.start()
    _start("watch_store", lambda: _repeat(watch_store, pause_watch))
    _start("refresh_durations", lambda: _repeat(refresh_durations, lambda: activity.pause(_EVERY_S)))
    _start("withdraw_lost", withdrawals.run)
    _start("refresh_keys", lambda: _repeat(refresh_keys, lambda: activity.pause(REFRESH_EVERY_S)))
    if signing_keys is not None:
        # It waits for the network, and no request waits for it after a rest, so it does not pause like the others.
        _start("refresh_signing_keys", lambda: _repeat(signing_keys.refresh, signing_keys.pause))
    if rate_limiter is not None:
        _start("settle_limits", lambda: _repeat(rate_limiter.settle, lambda: activity.pause(SETTLE_EVERY_S)))
    if stored_bytes.is_needed:  # it does not rest: an estimate takes longer than a request may wait
        _start("stored_bytes", lambda: _repeat(stored_bytes.refresh, lambda: time.sleep(READ_EVERY_S)))
    if recorder is not None:
        _start("store_audit", lambda: _repeat(recorder.flush, lambda: _pause_recorder(activity, recorder)))
    has_looked.wait(_FIRST_LOOK_MAX_S)


def _pause_recorder(activity: RequestActivity, recorder: AuditRecorder) -> None:
    activity.pause(FLUSH_EVERY_S, may_rest=not recorder.has_waiting)


def _start(name: str, target: Callable[[], None]) -> None:
    threading.Thread(target=target, name=name, daemon=True).start()


def _repeat(work: Callable[[], None], pause: Callable[[], None]) -> None:
    """Call ``work`` and ``pause`` in turn; go on after any error, because no other thread does this work."""
    while True:
        try:
            work()
        except Exception:  # noqa: BLE001  (logged, and tried again)
            structlog.get_logger().exception("a background thread had an error and continues")
        pause()
