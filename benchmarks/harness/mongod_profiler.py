"""Has mongod write down every operation on a database, and asks it for their plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pymongo.database import Database

ProfileEntry = Mapping[str, Any]
_PROFILE_BYTES: Final = 64 * 1024 * 1024
_WRITES: Final = frozenset({"insert", "update", "remove"})
# What explain takes over from a command; the rest (session, concerns) is refused or means nothing.
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
    """How mongod found its documents: the stages that reach for them, and how much it looked at."""

    stages: str
    keys: int
    documents: int


@contextmanager
def recording(database: Database[Any]) -> Iterator[list[ProfileEntry]]:
    """Answer a list that holds, at the end of the block, every operation on ``database`` in it, oldest first."""
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
    """Answer whether an operation writes; what is neither a write nor a read is not recorded by mongod here."""
    return entry["op"] in _WRITES or "findAndModify" in entry.get("command", {})


def plan_of(database: Database[Any], entry: ProfileEntry) -> QueryPlan:
    """Answer the plan of a recorded operation; what it looked at is as recorded, when it found something."""
    command = entry["command"]
    if entry["op"] == "insert":
        return QueryPlan("insert", entry.get("keysExamined", 0), entry.get("docsExamined", 0))
    kept = {name: command[name] for name in command if name in _EXPLAINED}
    explained = database.command("explain", kept, verbosity="queryPlanner")
    stages = sorted(set(_stages(explained["queryPlanner"]["winningPlan"])))
    return QueryPlan(" + ".join(stages), entry["keysExamined"], entry["docsExamined"])


def _stages(node: Mapping[str, Any]) -> Iterator[str]:
    """The stages of a plan that reach for documents: a COLLSCAN is one that reads them all."""
    below = [node["inputStage"]] if "inputStage" in node else node.get("inputStages", [])
    below += [node["queryPlan"]] if "queryPlan" in node else []
    if not below:
        index = node.get("indexName")
        yield node["stage"] if index is None else f"{node['stage']} {index}"
    for stage in below:
        yield from _stages(stage)
