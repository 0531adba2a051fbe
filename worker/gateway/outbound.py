"""What all calls of one process share: connections and breaker; built after the fork, opened at the first call."""

from __future__ import annotations

import os
import threading
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING

from shared.live.providers.call_policy import CallPolicy
from shared.settings import Settings
from worker.gateway.breaker_failover import BreakerFailover

if TYPE_CHECKING:  # they import the HTTP library, which takes 20 MB: not before an agent's first call
    from worker.gateway.connection import PoolTransport, Resolver
    from worker.gateway.sender import Sender


class Outbound:
    """The way out of one process; agents reach it through a Gateway for each attempt of a step."""

    def __init__(self, settings: Settings, resolve: Resolver | None = None, policy: CallPolicy | None = None) -> None:
        """``resolve`` is how names become addresses; ``policy`` replaces the limits that the settings give."""
        self.hosts = settings.outbound_hosts
        self._proxy = settings.outbound_proxy
        self._redis_url, self._policy = settings.redis_url, policy or CallPolicy(rate=settings.outbound_rate)
        self._resolve = resolve
        self._lock = threading.Lock()
        self._transport: PoolTransport | None = None
        self._owner = 0

    # Both only at the first call: together they cost 2.5 MB, in each process of a worker whose agents call nothing too.
    @cached_property
    def user_agent(self) -> str:
        """What the calls say of their sender."""
        return f"bucket/{version('bucket')}"

    @cached_property
    def breaker(self) -> BreakerFailover:
        """The breaker of this process."""
        return BreakerFailover(self._redis_url, self._policy)

    @property
    def is_loaded(self) -> bool:
        """Whether a call was made in this process, so that the HTTP library is loaded."""
        return self._transport is not None

    def new_sender(self) -> Sender:
        """Return a sender with cookies of its own; the connections are shared."""
        from worker.gateway.sender import Sender

        return Sender(self._connections())

    def _connections(self) -> PoolTransport:
        from worker.gateway.connection import PoolTransport

        with self._lock:
            if self._transport is None or self._owner != os.getpid():  # a process that an agent forked has its own
                self._transport, self._owner = PoolTransport(self.hosts, self._resolve, self._proxy), os.getpid()
            return self._transport

    def drop_connections(self) -> None:
        """Close all connections; the next sender opens new ones."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def close(self) -> None:
        """Close everything."""
        self.drop_connections()
        self.breaker.close()
