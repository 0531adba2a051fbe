"""The runs of the reference in MongoDB, written with a journalled majority as Bucket writes its own."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection


@cache
def runs() -> Collection[dict[str, Any]]:
    """Return the collection of this process's own client; call it only after the fork."""
    client: MongoClient[dict[str, Any]] = MongoClient(os.environ["MONGODB_URL"], w="majority", journal=True)
    return client.get_default_database()["runs"]
