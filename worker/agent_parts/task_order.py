"""Orders tasks by what they need; a circle, an unknown need and an id that is used twice are told by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from worker.agent_errors import InvalidInputError


def order_by_needs(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids so that each task follows those it needs; raises InvalidInputError if that is impossible."""
    ids: set[str] = set()
    for number, task in enumerate(tasks):
        if task["id"] in ids:
            raise InvalidInputError(f"/tasks/{number}/id: {task['id']!r} is the id of an earlier task too")
        ids.add(task["id"])
    for number, task in enumerate(tasks):
        for need in task.get("needs", ()):
            if need not in ids:
                raise InvalidInputError(f"/tasks/{number}/needs: {task['id']!r} needs {need!r}, which is not a task")
    try:
        return list(TopologicalSorter({task["id"]: task.get("needs", ()) for task in tasks}).static_order())
    except CycleError as error:
        circle = list(error.args[1])
        # graphlib names each task before the one that needs it; "a needs b" reads the other way round.
        path = " needs ".join(repr(task) for task in reversed(circle[-21:]))
        raise InvalidInputError(f"/tasks: they need each other in a circle: {path}") from error
