"""Celery's connection to Redis: the parameters that Bucket's own clients have, and a retry each second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from kombu.connection import Connection
from kombu.transport import redis as kombu_redis

from shared.live.redis_client import connection_options

RECONNECT_EVERY_S: Final = 1.0
_ADDRESS_AND_LOGIN: Final = ("host", "port", "path", "db", "username", "password")


class BrokerChannel(kombu_redis.Channel):
    """A channel whose connections have the parameters of ``BrokerConnection.options``, whatever kombu makes of the URL.

    kombu reads a URL otherwise than redis-py does: by default it verifies no certificate, and it takes no ``?db=3``.
    """

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[no-untyped-call]
        return parameters | dict(self.connection.client.options)


class BrokerTransport(kombu_redis.Transport):
    """kombu's Redis transport with channels of :class:`BrokerChannel`."""

    Channel = BrokerChannel


class BrokerConnection(Connection):
    """A broker connection that is retried each second; kombu's back-off would wait up to 30 s."""

    options: ClassVar[Mapping[str, Any]] = {}
    """Address, database, login and TLS of the Redis, as arguments of redis-py's connection."""

    def get_transport_cls(self) -> type[BrokerTransport]:
        """Return the transport, whatever the scheme of the URL."""
        return BrokerTransport

    def _ensure_connection(self, errback: Any = None, max_retries: Any = None, *args: Any, **options: Any) -> Any:
        del args
        fixed_interval = {"interval_start": RECONNECT_EVERY_S, "interval_step": 0, "interval_max": RECONNECT_EVERY_S}
        return super()._ensure_connection(errback, max_retries, **(options | fixed_interval))  # type: ignore[no-untyped-call]


def broker_connection_class(redis_url: str) -> type[BrokerConnection]:
    """Return the class of connections to the Redis at ``redis_url``; it replaces kombu's in ``app.amqp``."""
    options = {
        name: value
        for name, value in connection_options(redis_url).items()
        if name in _ADDRESS_AND_LOGIN or name.startswith("ssl_")
    }
    return type("RedisConnection", (BrokerConnection,), {"options": options})


def broker_settings(redis_url: str) -> dict[str, Any]:
    """Return Celery's settings of the broker: the URL without its options, and whether to use TLS."""
    url = redis_url.partition("?")[0].replace("unix://", "redis+socket://", 1)
    # Without this kombu warns that it verifies no certificate; BrokerChannel has the last word.
    tls = {"ssl_cert_reqs": "required"} if url.startswith("rediss://") else None
    return {"broker_url": url, "broker_use_ssl": tls}
