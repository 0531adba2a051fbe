"""Checks a MongoDB: that it replies as a replica set, and what should be changed about it."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any, Final

from pymongo.errors import PyMongoError, ServerSelectionTimeoutError
from pymongo.uri_parser import parse_uri

from compose.operator_error import OperatorError
from compose.server_report import NO_REPLY_FIX, ServerReport, require_version, warnings_of_known_holes
from shared.store import mongo_client

MONGODB_MIN: Final = (6, 0)
_FIXED: Final = {(7, 0): 32, (8, 0): 21}
_TIMEOUT_S: Final = 3.0
_HOSTS: Final = re.compile(r"(?<=://)((?:[^@/]*@)?)([^/?]+)")


def check_mongodb(url: str, *, is_production: bool = False) -> ServerReport:
    """Return the version of the MongoDB at ``url``, which must be a replica set, and what should be changed.

    Raises OperatorError if it does not reply, is too old, or is no replica set: majority writes need one.
    """
    try:
        with mongo_client.connect(url, _TIMEOUT_S, bound_calls=True) as client:
            hello = client.admin.command("hello")
            version = str(client.server_info()["version"])
    except ServerSelectionTimeoutError as error:
        raise _explain(url, error) from error
    except (PyMongoError, OSError, ValueError) as error:
        raise _no_reply(error) from error
    require_version("MongoDB", version, MONGODB_MIN)
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise _no_replica_set(hello, url)
    warnings = warnings_of_known_holes("MongoDB", version, _FIXED)
    if is_production and not _has_login(url):
        warnings.append("it asks for no password: whoever reaches it can read and change every run")
    return ServerReport(version, tuple(warnings))


def _no_reply(error: Exception) -> OperatorError:
    return OperatorError(f"the MongoDB of MONGODB_URL does not reply: {error}", fix=NO_REPLY_FIX)


def _has_login(url: str) -> bool:
    parsed = parse_uri(url, validate=False)
    return bool(parsed["username"] or parsed["options"].get("authmechanism"))


def _no_replica_set(hello: Mapping[str, Any], host: str) -> OperatorError:
    if hello.get("isreplicaset"):
        return OperatorError(
            "the replica set of MONGODB_URL was not initiated yet",
            fix=f"once, on one member: mongosh '{_without_login(host)}' --eval 'rs.initiate()'",
        )
    return OperatorError(
        "the MongoDB of MONGODB_URL is no replica set",
        fix="start it with --replSet bucket, then once: "
        f"mongosh '{_without_login(host)}' --eval 'rs.initiate()'; one member is enough",
    )


def _without_login(url: str) -> str:
    return re.sub(r"(?<=://)[^@/]*@", "", url)


def _explain(url: str, error: ServerSelectionTimeoutError) -> OperatorError:
    """Return why no primary was found: each host of ``url`` is asked by itself, as what it is."""
    where = _HOSTS.search(url)
    if where is None or url.startswith("mongodb+srv://"):
        return _no_reply(error)
    for host in where[2].split(","):
        is_socket = host.endswith(".sock")
        if not (is_socket or _is_reachable(host if ":" in host else f"{host}:27017")):
            continue
        hello = _hello_of(f"{url[: where.start(2)]}{host}{url[where.end(2) :]}")
        if hello is None:
            continue
        if "setName" not in hello:
            return _no_replica_set(hello, f"mongodb://{host}")
        members = [str(member) for member in hello.get("hosts", ())]
        if not any(map(_is_reachable, members)):
            return OperatorError(
                f"the members of the replica set call themselves {', '.join(members)}, which this machine cannot reach",
                fix="make these names known here (DNS, /etc/hosts), or add directConnection=true to MONGODB_URL, "
                "which then follows no failover",
            )
        return OperatorError(
            "the replica set of MONGODB_URL has no primary",
            fix=f"see: mongosh 'mongodb://{host}' --eval 'rs.status()'; a majority of its members must run",
        )
    return _no_reply(error)


def _hello_of(url: str) -> dict[str, Any] | None:
    try:
        with mongo_client.connect(url, _TIMEOUT_S, bound_calls=True, directConnection=True, replicaSet=None) as client:
            return dict(client.admin.command("hello"))
    except (PyMongoError, OSError, ValueError):
        return None


def _is_reachable(member: str) -> bool:
    host, _, port = member.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False
