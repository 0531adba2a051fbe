"""Celery's connection to Redis has the parameters of Bucket's own clients, for each spelling of the URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from compose.embedded.managed_process import Child
from shared.live.redis_client import connect
from shared.settings import Settings
from tests.tls_proxy import Authority, TlsProxy
from worker.app import celery_config_of
from worker.broker import broker_connection_class

COMPARED = ("host", "port", "path", "db", "username", "password")


def broker_pool(url: str) -> redis.ConnectionPool:
    """Return the connection pool of a worker's Celery connection that has connected to ``url``."""
    app = Celery("test", set_as_current=False)
    app.conf.update(celery_config_of(Settings(redis_url=url)))
    app.amqp.Connection = broker_connection_class(url, on_foreign=lambda _: None)
    with app.connection_for_read() as connection:
        transport = connection.create_transport()
        with closing(transport.create_channel(transport)) as channel:  # without the retries of ``connect``
            pool: redis.ConnectionPool = channel.client.connection_pool
            return pool


def parameters(pool: redis.ConnectionPool) -> dict[str, Any]:
    kwargs = pool.connection_kwargs
    compared = {"db": 0, "ssl_cert_reqs": "required"}  # as redis-py has it by default
    return compared | {
        name: value
        for name, value in kwargs.items()
        if (name in COMPARED and value is not None) or name.startswith("ssl_")
    }


def check_both_alike(url: str) -> None:
    with closing(connect(url)) as client:
        assert client.ping()
        pool = broker_pool(url)
        assert parameters(pool) == parameters(client.connection_pool)
        assert isinstance(pool.connection_class(**pool.connection_kwargs), client.connection_pool.connection_class)


@pytest.mark.parametrize("database", [0, 3])
def test_a_socket_and_its_database(own_redis: tuple[Child, str], database: int) -> None:
    check_both_alike(own_redis[1].replace("db=0", f"db={database}"))


def test_a_user_whose_password_needs_quoting(own_redis: tuple[Child, str]) -> None:
    _, url = own_redis
    with closing(connect(url)) as client:
        client.acl_setuser(
            "bucket", enabled=True, passwords=["+a@b:c/d?"], keys=["*"], channels=["*"], commands=["+@all"]
        )
    check_both_alike(url.replace("unix://", "unix://bucket:a%40b%3Ac%2Fd%3F@"))


@pytest.fixture
def tls(tmp_path: Path, own_redis: tuple[Child, str]) -> Iterator[tuple[str, Authority]]:
    """Yield the address of a TLS proxy before a Redis, and the authority of its certificate."""
    authority = Authority.make(tmp_path / "authority")
    with TlsProxy(authority) as proxy:
        proxy.target = Path(own_redis[1].removeprefix("unix://").partition("?")[0])
        yield f"rediss://localhost:{proxy.port}", authority


@pytest.mark.parametrize("spelling", ["", "&ssl_cert_reqs=required", "&ssl_cert_reqs=CERT_REQUIRED", "&db=3"])
def test_a_certificate_is_verified_by_both_with_each_spelling(tls: tuple[str, Authority], spelling: str) -> None:
    url, authority = tls
    check_both_alike(f"{url}?ssl_ca_certs={authority.certificate}{spelling}")
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        broker_pool(f"{url}/0?{spelling[1:]}")
    with (
        closing(connect(f"{url}/0?{spelling[1:]}")) as client,
        pytest.raises(redis.ConnectionError, match="VERIFY_FAILED"),
    ):
        client.ping()


def test_a_name_that_the_certificate_does_not_have_is_refused_by_both(tls: tuple[str, Authority]) -> None:
    url, authority = tls
    by_number = f"{url.replace('localhost', '127.0.0.1')}/0?ssl_ca_certs={authority.certificate}"
    with pytest.raises(redis.ConnectionError, match="IP address mismatch"):
        broker_pool(by_number)
    check_both_alike(f"{by_number}&ssl_check_hostname=no")


@pytest.mark.parametrize("spelling", ["none", "CERT_NONE"])
def test_who_asks_for_no_verification_gets_none_on_both_sides(tls: tuple[str, Authority], spelling: str) -> None:
    check_both_alike(f"{tls[0]}/0?ssl_cert_reqs={spelling}")
