"""Reads the seed baskets that ship with Bucket; the store decides whether to insert one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson

import shared
from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.errors import SpecError
from shared.ids import BASKET_NAME_PATTERN
from shared.suggestions import closest_matches

_FIELDS: Final = {"name": str, "description": str, "agents": list, "execution_strategy": str}


def load_seed_baskets(catalogue: AgentCatalogue | None = None, folder: Path | None = None) -> list[dict[str, Any]]:
    """Load the seed baskets, sorted by name: ``{name, description, agents, execution_strategy}``.

    Raises SpecError with a line for each fault of all files; the agents are checked if there is a ``catalogue``.
    """
    baskets: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for path in sorted((folder or Path(shared.__file__).parent / "baskets").glob("*.json")):
        try:
            raw = orjson.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            faults.append(f"{path}: cannot be read: {error}")
            continue
        file_faults = list(_faults(raw, catalogue))
        if not file_faults and raw["name"] in baskets:
            file_faults = [f"name {raw['name']!r} is taken by another file"]
        faults += [f"{path}: {fault}" for fault in file_faults]
        if not file_faults:
            baskets[raw["name"]] = raw
    if faults:
        raise SpecError("\n".join(faults))
    return [basket for _, basket in sorted(baskets.items())]


def _faults(raw: Any, catalogue: AgentCatalogue | None) -> Iterator[str]:
    if not isinstance(raw, dict) or set(raw) != set(_FIELDS):
        yield f"must be an object of exactly {', '.join(_FIELDS)}"
        return
    mistyped = [name for name, kind in _FIELDS.items() if not isinstance(raw[name], kind)]
    if mistyped:
        yield from (f"{name} must be a {_FIELDS[name].__name__}" for name in mistyped)
        return
    if not BASKET_NAME_PATTERN.fullmatch(raw["name"]):
        yield f"name must match {BASKET_NAME_PATTERN.pattern}"
    if raw["execution_strategy"] not in {"sequential", "parallel"}:
        yield "execution_strategy must be sequential or parallel"
    if not raw["agents"] or not all(isinstance(agent, str) for agent in raw["agents"]):
        yield "agents must be a list of at least one agent's name"
    elif catalogue is not None:
        agent_names = tuple(spec.name for spec in catalogue.agents())
        for agent in raw["agents"]:
            if not catalogue.has(agent) and agent not in catalogue.broken:
                matches = closest_matches(agent, agent_names)
                yield f"agent {agent!r} was not found" + (f"; did you mean {matches[0]!r}?" if matches else "")
