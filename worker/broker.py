"""Celery's connection to Redis: the parameters that Bucket's own clients have, and a retry each second."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import closing
from typing import Any, ClassVar, Final, cast

import orjson
import redis
import structlog
from kombu.connection import Connection
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from shared.live.redis_client import connect, connection_options
from shared.queue.write_check import check_writable

RECONNECT_EVERY_S: Final = 1.0
_CHECK_TIMEOUT_S: Final = 3.0
# Celery reads them as times, lists or numbers; Bucket's messages leave them out or null.
_UNUSED_HEADERS: Final = ("eta", "expires", "retries", "stamps", "stamped_headers", "group", "compression", "shadow")
_ADDRESS_AND_LOGIN: Final = ("host", "port", "path", "db", "username", "password")


class BrokerQoS(virtual.QoS):
    """The unacknowledged messages of a connection that is lost: they go back to Redis, or else are dropped.

    A dropped one harms nothing: the reconciler offers its step again. kombu would write them to a file in TMPDIR, which
    nobody removes, and log an alarm.
    """

    def restore_unacked(self) -> list[Any]:
        """Send them back to Redis; returns nothing of those that it did not take."""
        dropped = super().restore_unacked()  # type: ignore[no-untyped-call]
        if dropped:
            structlog.get_logger().info("Redis is away: messages are left to the reconciler", count=len(dropped))
        return []


class BrokerClient(redis.Redis):
    """A client that takes what is no message of Celery's out of the queue; kombu would end the worker on it."""

    on_foreign: ClassVar[Callable[[bytes], None]]

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        """Return a reply; that to BRPOP is empty instead of a foreign message, which goes to ``on_foreign``."""
        reply = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name != "BRPOP" or not reply or _is_envelope(reply[1]):
            return reply
        type(self).on_foreign(reply[1])
        return None


class BrokerChannel(kombu_redis.Channel):
    """A channel whose connections have the parameters that redis-py reads from the URL, whatever kombu reads.

    kombu reads a URL otherwise than redis-py does: by default it verifies no certificate, and it takes no ``?db=3``.
    """

    def _get_client(self) -> type[BrokerClient]:
        return cast("BrokerConnection", self.connection.client).redis_client

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self.QoS = BrokerQoS  # type: ignore[assignment]  # kombu's types say: of the transport's own kind

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[no-untyped-call]
        options = connection_options(self.connection.client.redis_url)
        return parameters | {
            name: value for name, value in options.items() if name in _ADDRESS_AND_LOGIN or name.startswith("ssl_")
        }


class BrokerTransport(kombu_redis.Transport):
    """kombu's Redis transport for a worker, which waits for a Redis that takes writes instead of ending itself."""

    Channel = BrokerChannel
    # A replica, a full Redis or missing rights: for kombu an error of the channel, which ends the worker.
    connection_errors = (*kombu_redis.Transport.connection_errors, redis.ResponseError)

    def establish_connection(self) -> Any:
        """Connect; raises RedisError, and kombu tries again, as long as Redis refuses writes."""
        redis_url = cast("BrokerConnection", self.client).redis_url
        with closing(connect(redis_url, _CHECK_TIMEOUT_S, connections_max=1)) as client:
            check_writable(client)
        return super().establish_connection()  # type: ignore[no-untyped-call]


class BrokerConnection(Connection):
    """A broker connection that is retried each second; kombu's back-off would wait up to 30 s."""

    redis_url: ClassVar[str]
    """The Redis, as in REDIS_URL."""
    redis_client: ClassVar[type[BrokerClient]]

    def get_transport_cls(self) -> type[BrokerTransport]:
        """Return the transport, whatever the scheme of the URL."""
        return BrokerTransport

    def _ensure_connection(self, errback: Any = None, max_retries: Any = None, *args: Any, **options: Any) -> Any:
        del args
        fixed_interval = {"interval_start": RECONNECT_EVERY_S, "interval_step": 0, "interval_max": RECONNECT_EVERY_S}
        return super()._ensure_connection(errback, max_retries, **(options | fixed_interval))  # type: ignore[no-untyped-call]


def broker_connection_class(redis_url: str, on_foreign: Callable[[bytes], None]) -> type[BrokerConnection]:
    """Return the class of connections to the Redis at ``redis_url``; it replaces kombu's in ``app.amqp``.

    ``on_foreign`` gets what is in a queue and no message of Celery's; it must raise nothing.
    """
    client = type("RedisClient", (BrokerClient,), {"on_foreign": staticmethod(on_foreign)})
    return type("RedisConnection", (BrokerConnection,), {"redis_url": redis_url, "redis_client": client})


def broker_settings(redis_url: str) -> dict[str, Any]:
    """Return Celery's settings of the broker: the URL without its options, and whether to use TLS."""
    url = redis_url.partition("?")[0].replace("unix://", "redis+socket://", 1)
    # Without this kombu warns that it verifies no certificate; BrokerChannel has the last word.
    tls = {"ssl_cert_reqs": "required"} if url.startswith("rediss://") else None
    return {"broker_url": url, "broker_use_ssl": tls}


def _is_envelope(raw: bytes) -> bool:
    """Return whether ``raw`` has what kombu and Celery take for granted of a message: without it they end the worker.

    A task that is unknown, and arguments that are no task message's, are refused without harm.
    """
    try:
        envelope = orjson.loads(raw)
        headers, properties = envelope["headers"], envelope["properties"]
        args, kwargs, embed = orjson.loads(base64.b64decode(envelope["body"], validate=True))
        return (
            (envelope["content-type"], envelope["content-encoding"]) == ("application/json", "utf-8")
            and properties["body_encoding"] == "base64"
            and isinstance(properties["delivery_tag"], str)
            and isinstance(properties["delivery_info"], dict)
            and isinstance(headers["task"], str)
            and isinstance(headers["id"], str)
            and not any(headers.get(name) for name in _UNUSED_HEADERS)
            and headers.get("timelimit", [None, None]) == [None, None]
            and (type(args), type(kwargs)) == (list, dict)
            and not any(embed.values())
        )
    except (ValueError, TypeError, LookupError, AttributeError):
        return False
