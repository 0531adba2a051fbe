"""A variable that an agent needs: named in its spec, read from the environment of the process that runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

SETTING_NAME_PATTERN: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_FIELDS: Final = ("name", "required", "description")
# An agent's settings are no way to Bucket's own: REDIS_URL and MONGODB_URL hold passwords.
_RESERVED_PREFIXES: Final = ("BUCKET_", "PYTHON", "LD_", "GUNICORN_", "CELERY_")
_RESERVED_NAMES: Final = frozenset({"PORT", "HOST", "REDIS_URL", "MONGODB_URL", "PATH", "HOME"})


@dataclass(frozen=True, slots=True)
class AgentSetting:
    """An environment variable of an agent; without a ``required`` one the agent is unavailable."""

    name: str
    required: bool = True
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the setting as in a spec; its value is no part of it."""
        return {"name": self.name, "required": self.required, "description": self.description}


def parse_agent_settings(raw: Any) -> tuple[AgentSetting, ...]:
    """Build the settings of a spec, in which :func:`find_agent_setting_faults` finds none."""
    return tuple(AgentSetting(entry) if isinstance(entry, str) else AgentSetting(**entry) for entry in raw)


def find_agent_setting_faults(raw: object) -> Iterator[str]:
    """Yield what is wrong with the field ``settings`` of a spec."""
    if not isinstance(raw, list | tuple):
        yield "must be a list of names of variables"
        return
    names = []
    for index, entry in enumerate(raw):
        if isinstance(entry, Mapping):
            yield from (f"/{index} {fault}" for fault in _object_faults(entry))
        name = entry.get("name") if isinstance(entry, Mapping) else entry
        if fault := _name_fault(name):
            yield f"/{index} {fault}"
        names.append(str(name))
    yield from (f"names {name} twice" for name in sorted(set(names)) if names.count(name) > 1)


def _object_faults(entry: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name} is not a field; the fields are {', '.join(_FIELDS)}" for name in entry if name not in _FIELDS)
    if not isinstance(entry.get("required", True), bool):
        yield "required must be true or false"
    if not isinstance(entry.get("description", ""), str):
        yield "description must be a string"


def _name_fault(name: object) -> str:
    if not isinstance(name, str) or not SETTING_NAME_PATTERN.fullmatch(name):
        return "must be the name of a variable, in capital letters, such as RATES_API_KEY"
    if name in _RESERVED_NAMES or name.startswith(_RESERVED_PREFIXES):
        return f"{name} is not an agent's own; choose another name"
    return ""
