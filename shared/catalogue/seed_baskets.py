"""Reads the baskets that ship with Bucket; whether one is inserted is the store's to decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson

import shared
from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.domain.definitions.agent_spec import closest_matches
from shared.errors import SpecError
from shared.ids import BASKET_NAME_PATTERN

_FIELDS: Final = {"name": str, "description": str, "agents": list, "execution_strategy": str}


def load_seed_baskets(catalogue: AgentCatalogue | None = None, home: Path | None = None) -> tuple[dict[str, Any], ...]:
    """Answer the seeded baskets sorted by name: ``{name, description, agents, execution_strategy}``.

    Raises SpecError with a line for each fault of all files; agents are looked up where a ``catalogue`` is given.
    """
    baskets: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for path in sorted((home or Path(shared.__file__).parent / "baskets").glob("*.json")):
        try:
            raw = orjson.loads(path.read_bytes())
        except (OSError, ValueError) as wrong:
            faults.append(f"{path}: cannot be read: {wrong}")
            continue
        found = list(_faults(raw, catalogue))
        if not found and raw["name"] in baskets:
            found = [f"name {raw['name']!r} is taken by another file"]
        faults += [f"{path}: {fault}" for fault in found]
        if not found:
            baskets[raw["name"]] = raw
    if faults:
        raise SpecError("\n".join(faults))
    return tuple(basket for _, basket in sorted(baskets.items()))


def _faults(raw: Any, catalogue: AgentCatalogue | None) -> Iterator[str]:
    if not isinstance(raw, dict) or set(raw) != set(_FIELDS):
        yield f"must be an object of exactly {', '.join(_FIELDS)}"
        return
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(raw[name], kind)]
    if wrong:
        yield from (f"{name} must be a {_FIELDS[name].__name__}" for name in wrong)
        return
    if not BASKET_NAME_PATTERN.fullmatch(raw["name"]):
        yield f"name must match {BASKET_NAME_PATTERN.pattern}"
    if raw["execution_strategy"] not in {"sequential", "parallel"}:
        yield "execution_strategy must be sequential or parallel"
    if not raw["agents"] or not all(isinstance(agent, str) for agent in raw["agents"]):
        yield "agents must be a list of at least one agent's name"
    elif catalogue is not None:
        known = tuple(spec.name for spec in catalogue.agents())
        for agent in raw["agents"]:
            if not catalogue.has(agent):
                near = closest_matches(agent, known)
                yield f"agent {agent!r} was not found" + (f"; did you mean {near[0]!r}?" if near else "")
