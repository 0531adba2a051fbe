"""What all calls of one process share: connections, breaker, metrics; built after the fork, used from the first call."""

from __future__ import annotations

import os
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING

from shared.live.providers.call_policy import Admission, CallPolicy, CallReport
from shared.settings import Settings
from worker.gateway.local_breaker import LocalBreaker

if TYPE_CHECKING:
    from worker.gateway.connection import PoolTransport, Resolver
    from worker.gateway.sender import Sender


class Outbound:
    """The way out of one process; agents reach it through a Gateway for each attempt of a step."""

    def __init__(self, settings: Settings, resolve: Resolver | None = None, policy: CallPolicy | None = None) -> None:
        """``resolve`` is how names become addresses; ``policy`` replaces the limits that the settings give."""
        self.hosts = settings.outbound_hosts
        self.user_agent = f"bucket/{version('bucket')}"
        self._resolve = resolve
        self._lock = threading.Lock()
        self._transport: PoolTransport | None = None
        self._owner = 0
        self._breaker = LocalBreaker(policy or CallPolicy(rate=settings.outbound_rate))

    def new_sender(self) -> Sender:
        """Return a sender with cookies of its own; the connections are shared."""
        from worker.gateway.sender import Sender  # not before the first call: it imports the HTTP library

        return Sender(self._connections())

    def _connections(self) -> PoolTransport:
        from worker.gateway.connection import PoolTransport  # not before the first call, as above

        with self._lock:
            if self._transport is None or self._owner != os.getpid():  # a process that an agent forked has its own
                self._transport, self._owner = PoolTransport(self.hosts, self._resolve), os.getpid()
            return self._transport

    def drop_connections(self) -> None:
        """Close all connections; the next sender opens new ones."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def admit(self, provider: str, *, lease_s: float, is_critical: bool) -> Admission:
        """Ask the breaker and the rate limit of ``provider``."""
        return self._breaker.admit(provider, lease_s=lease_s, is_critical=is_critical)

    def record(self, report: CallReport, seconds: float, kind: str) -> bool:
        """Report a call, and return whether it may be repeated."""
        return self._breaker.record(report).may_retry

    def count_refusal(self, kind: str) -> None:
        """Count a call that was not made."""
