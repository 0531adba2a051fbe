"""The connections that a mongod has, by the name that their client gave itself."""

from __future__ import annotations

from typing import Any

from pymongo import MongoClient


def count_connections(client: MongoClient[dict[str, Any]], appname: str) -> int:
    """Return how many connections clients called ``appname`` have to the mongod of ``client``, idle ones too."""
    pipeline: list[dict[str, Any]] = [{"$currentOp": {"idleConnections": True}}, {"$match": {"appName": appname}}]
    return len(list(client.admin.aggregate(pipeline)))
