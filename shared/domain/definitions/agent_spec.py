"""Agent specification: parsed strictly from JSON, with all faults reported together."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Any, Final

from shared.domain.definitions.agent_setting import AgentSetting, find_agent_setting_faults, parse_agent_settings
from shared.domain.definitions.retry_policy import parse_retry_policy
from shared.errors import SpecError
from shared.ids import AGENT_NAME_PATTERN
from shared.suggestions import closest_matches

ENTRY_PATTERN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*:[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
TIMEOUT_MAX_S: Final = 86_400.0
QUEUE_NAMES: Final = ("default", "long")
# The engine's own log lines and steps have these names; an agent with one of them could not be told apart from it.
RESERVED_AGENT_NAMES: Final = frozenset({"basket_manager", "bulk_action"})


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities that an agent declares."""

    chainable: bool
    memory_access: bool
    idempotent: bool


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The specification of an agent, as its author writes it; its mappings must not be modified."""

    name: str
    version: str
    description: str
    domains: tuple[str, ...]
    entry: str
    capabilities: Capabilities
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    sample_input: Mapping[str, Any]
    sample_output: Mapping[str, Any]
    timeout_s: float = 300
    retry: str | Mapping[str, Any] = "default"
    queue: str = "default"
    settings: tuple[AgentSetting, ...] = ()
    unlisted_without_settings: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the spec as a JSON object, the fields in the order above; it is a copy that the caller may change."""
        payload = {field.name: copy.deepcopy(getattr(self, field.name)) for field in fields(self)}
        payload["domains"] = list(self.domains)
        payload["settings"] = [setting.to_json() for setting in self.settings]
        payload["capabilities"] = {name: getattr(self.capabilities, name) for name in _CAPABILITIES}
        return payload


def parse_agent_spec(raw: object, source: str) -> AgentSpec:
    """Build the spec from ``raw``, the parsed JSON of the file ``source``.

    Raises SpecError with one line for each fault: ``<source>: <field> <what is wrong>``. If the file is in a folder,
    the name in the spec must be the name of the folder.
    """
    if not isinstance(raw, Mapping):
        raise SpecError(f"{source}: must be a JSON object")
    faults = list(_field_name_faults(raw, _FIELDS, _REQUIRED))
    for name, check in _CHECKS.items():
        if name in raw:
            faults += [f"{name} {fault}" for fault in check(raw[name])]
    folder = PurePath(source).parent.name
    if folder and isinstance(raw.get("name"), str) and raw["name"] != folder:
        faults.append(f"name is {raw['name']!r} but its folder is {folder!r}; they must be the same")
    if faults:
        raise SpecError("\n".join(f"{source}: {fault}" for fault in faults))
    capabilities = Capabilities(**raw["capabilities"])
    settings = parse_agent_settings(raw.get("settings", ()))
    if raw.get("unlisted_without_settings") and not any(setting.required for setting in settings):
        raise SpecError(f"{source}: unlisted_without_settings is true but settings names no required one")
    parsed = {"domains": tuple(raw["domains"]), "capabilities": capabilities, "settings": settings}
    return AgentSpec(**{**raw, **parsed})


def readable_fields(raw: object) -> dict[str, Any]:
    """Return the fields of a wrong spec that are right by themselves, as :meth:`AgentSpec.to_json` has them."""
    if not isinstance(raw, Mapping):
        return {}
    fields_read = {name: raw[name] for name, check in _CHECKS.items() if name in raw and not any(check(raw[name]))}
    if "settings" in fields_read:
        fields_read["settings"] = [setting.to_json() for setting in parse_agent_settings(raw["settings"])]
    return fields_read


def _field_name_faults(
    raw: Mapping[str, Any], allowed: tuple[str, ...], required: tuple[str, ...], within: str = ""
) -> Iterator[str]:
    for name in raw:
        if name not in allowed:
            matches = closest_matches(str(name), allowed)
            hint = f"; did you mean {matches[0]}?" if matches else f"; the fields are {', '.join(allowed)}"
            yield f"{within}{name} is not a field{hint}"
    yield from (f"{within}{name} is missing" for name in required if name not in raw)


def _must(is_valid: Callable[[Any], bool], fault: str) -> Callable[[Any], Iterator[str]]:
    return lambda value: iter(() if is_valid(value) else (fault,))


def _name(value: object) -> Iterator[str]:
    if not isinstance(value, str) or not AGENT_NAME_PATTERN.fullmatch(value):
        yield f"must match {AGENT_NAME_PATTERN.pattern}"
    elif value in RESERVED_AGENT_NAMES:
        yield f"{value!r} is reserved"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _domains(value: object) -> Iterator[str]:
    if not isinstance(value, list | tuple) or not value:
        yield "must be a list of at least one string"
    elif not all(map(_is_text, value)):
        yield "must hold strings that are not empty"
    elif len(set(value)) != len(value):
        yield "names a domain twice"


def _capabilities(value: object) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"must be an object of {', '.join(_CAPABILITIES)}"
        return
    yield from _field_name_faults(value, _CAPABILITIES, _CAPABILITIES, "/ ")
    for name in _CAPABILITIES:
        if name in value and not isinstance(value[name], bool):
            yield f"/ {name} must be true or false"


def _timeout(value: object) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        yield "must be a number of seconds"
    elif not 0 < value <= TIMEOUT_MAX_S:
        yield f"must be above 0 and at most {TIMEOUT_MAX_S:.0f} (24 h)"


def _retry(value: Any) -> Iterator[str]:
    try:
        parse_retry_policy(value)
    except SpecError as error:
        yield f"is no retry policy: {error.message}"


_text: Final = _must(_is_text, "must be a string that is not empty")
_object: Final = _must(lambda value: isinstance(value, Mapping), "must be an object")
_entry: Final = _must(
    lambda value: isinstance(value, str) and ENTRY_PATTERN.fullmatch(value) is not None,
    'must be "module:function", the module being a file of the agent\'s own folder, such as "agent:run"',
)
_queue: Final = _must(lambda value: value in QUEUE_NAMES, f"must be one of {', '.join(QUEUE_NAMES)}")
_CAPABILITIES: Final = tuple(field.name for field in fields(Capabilities))
_FIELDS: Final = tuple(field.name for field in fields(AgentSpec))
_REQUIRED: Final = _FIELDS[: _FIELDS.index("timeout_s")]
_CHECKS: Final[dict[str, Callable[[Any], Iterator[str]]]] = {
    "name": _name,
    "version": _text,
    "description": _text,
    "domains": _domains,
    "entry": _entry,
    "capabilities": _capabilities,
    "input_schema": _object,
    "output_schema": _object,
    "sample_input": _object,
    "sample_output": _object,
    "timeout_s": _timeout,
    "retry": _retry,
    "queue": _queue,
    "settings": find_agent_setting_faults,
    "unlisted_without_settings": _must(lambda value: isinstance(value, bool), "must be true or false"),
}
