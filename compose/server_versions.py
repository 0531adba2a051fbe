"""Checks the versions of Redis and MongoDB; raises OperatorError if one does not reply or cannot serve Bucket."""

from __future__ import annotations

from contextlib import closing
from typing import Final

import redis
from pymongo.errors import PyMongoError

from compose.operator_error import OperatorError
from shared.live import redis_client
from shared.store import database

REDIS_MIN: Final = (6, 2)
MONGODB_MIN: Final = (6, 0)
_FORKS: Final = ("valkey", "redict")  # they report as redis_version the Redis that they are compatible with
_TIMEOUT_S: Final = 3.0
_NO_REPLY_FIX: Final = "see that it runs, or unset it"
_CERTIFICATE_FIX: Final = (
    "name the host as its certificate does, and its authority by ?ssl_ca_certs=/path/to/ca.pem or SSL_CERT_FILE"
)


def check_redis_version(url: str, minimum: tuple[int, ...] = REDIS_MIN) -> str:
    """Return the version of the Redis at ``url``, of a fork with its name ("Valkey 9.1.2").

    Raises OperatorError if it is older than ``minimum``; of a fork, the Redis it is compatible with.
    """
    try:
        with closing(redis_client.connect(url, timeout_s=_TIMEOUT_S)) as client:
            info = client.info("server")
    except (redis.RedisError, OSError, ValueError) as error:
        fix = _CERTIFICATE_FIX if "certificate verify failed" in str(error) else _NO_REPLY_FIX
        raise OperatorError(f"the Redis of REDIS_URL does not reply: {error}", fix=fix) from error
    version = str(info["redis_version"])
    _require_version("Redis", version, minimum)
    return next(
        (f"{fork.capitalize()} {info[f'{fork}_version']}" for fork in _FORKS if f"{fork}_version" in info), version
    )


def check_mongodb_version(url: str) -> str:
    """Return the version of the MongoDB at ``url``, which must be a replica set: majority writes need one."""
    try:
        with database.connect(url, _TIMEOUT_S, bound_calls=True) as client:
            hello = client.admin.command("hello")
            version = str(client.server_info()["version"])
    except (PyMongoError, OSError, ValueError) as error:
        raise OperatorError(f"the MongoDB of MONGODB_URL does not reply: {error}", fix=_NO_REPLY_FIX) from error
    _require_version("MongoDB", version, MONGODB_MIN)
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise OperatorError(
            "the MongoDB of MONGODB_URL is no replica set",
            fix="start it with --replSet bucket and run rs.initiate() once; one member is enough",
        )
    return version


def _require_version(server: str, version: str, minimum: tuple[int, ...]) -> None:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < minimum:
        required = ".".join(map(str, minimum))
        raise OperatorError(f"{server} {version} is too old", fix=f"use {server} {required} or newer")
