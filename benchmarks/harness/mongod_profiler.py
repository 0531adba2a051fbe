"""Mongod's profiler: records every operation on a database and reads their query plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pymongo.database import Database

ProfileEntry = Mapping[str, Any]
_PROFILE_BYTES: Final = 64 * 1024 * 1024
_WRITES: Final = frozenset({"insert", "update", "remove"})
# The fields of a command that explain accepts; the others (session, concerns) are refused or have no effect.
_EXPLAINED: Final = (
    "find",
    "filter",
    "projection",
    "sort",
    "limit",
    "findAndModify",
    "query",
    "update",
    "fields",
    "new",
)


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """How mongod found its documents: the leaf stages of the plan, and the keys and documents that it examined."""

    stages: str
    keys: int
    documents: int


@contextmanager
def recording(database: Database[Any]) -> Iterator[list[ProfileEntry]]:
    """Yield a list that, after the block, holds every operation on ``database`` during the block, oldest first."""
    entries: list[ProfileEntry] = []
    database.command("profile", 0)
    database.drop_collection("system.profile")
    database.create_collection("system.profile", capped=True, size=_PROFILE_BYTES)
    database.command("profile", 2)
    try:
        yield entries
    finally:
        database.command("profile", 0)
    profile = f"{database.name}.system.profile"
    entries += [
        entry for entry in database["system.profile"].find({}, sort=[("$natural", 1)]) if entry["ns"] != profile
    ]


def is_write(entry: ProfileEntry) -> bool:
    """Return whether an operation writes; all others that mongod records here are reads."""
    return entry["op"] in _WRITES or "findAndModify" in entry.get("command", {})


def plan_of(database: Database[Any], entry: ProfileEntry) -> QueryPlan:
    """Return the plan of a recorded operation, with the keys and documents that it examined when it was recorded."""
    command = entry["command"]
    if entry["op"] == "insert":
        return QueryPlan("insert", entry.get("keysExamined", 0), entry.get("docsExamined", 0))
    explainable = {name: command[name] for name in command if name in _EXPLAINED}
    explained = database.command("explain", explainable, verbosity="queryPlanner")
    stages = sorted(set(_stages(explained["queryPlanner"]["winningPlan"])))
    return QueryPlan(" + ".join(stages), entry["keysExamined"], entry["docsExamined"])


def _stages(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the leaf stages of a plan, with their index; a COLLSCAN reads all documents."""
    children = [node["inputStage"]] if "inputStage" in node else node.get("inputStages", [])
    children += [node["queryPlan"]] if "queryPlan" in node else []
    if not children:
        index = node.get("indexName")
        yield node["stage"] if index is None else f"{node['stage']} {index}"
    for stage in children:
        yield from _stages(stage)
