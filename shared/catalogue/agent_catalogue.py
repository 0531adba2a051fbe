"""Reads every agent's spec by path, at boot; a wrong one names itself, all faults are told together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

import shared
from shared.catalogue.schema_validator import CompiledSchema, SchemaFault
from shared.domain.definitions.agent_spec import AgentSpec, closest_matches, parse_agent_spec
from shared.domain.lifecycle.simulation import SIMULATE_AGENT_NAME, find_script_faults
from shared.errors import AgentNotFound, SpecError

SPEC_FILE: Final = "agent_spec.json"


@dataclass(frozen=True, slots=True)
class _Entry:
    spec: AgentSpec
    folder: Path
    input: CompiledSchema
    output: CompiledSchema


class AgentCatalogue:
    """The agents there are; made by ``load_catalogue`` and never changed."""

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self._entries = {entry.spec.name: entry for entry in sorted(entries, key=lambda entry: entry.spec.name)}

    def agents(self, domain: str | None = None) -> tuple[AgentSpec, ...]:
        """Answer the specs sorted by name, all or those of one domain."""
        specs = (entry.spec for entry in self._entries.values())
        return tuple(spec for spec in specs if domain is None or domain in spec.domains)

    def has(self, name: str) -> bool:
        """Answer whether there is an agent of this name."""
        return name in self._entries

    def agent(self, name: str) -> AgentSpec:
        """Answer one agent's spec; raises AgentNotFound, which names the nearest there are."""
        return self._entry(name).spec

    def find_input_faults(self, name: str, value: Any) -> list[SchemaFault]:
        """Answer what in ``value`` breaks the agent's input schema; raises AgentNotFound."""
        faults = self._entry(name).input.find_faults(value)
        if name == SIMULATE_AGENT_NAME and not faults:
            return [SchemaFault(fault.pointer, fault.message) for fault in find_script_faults(value)]
        return faults

    def find_output_faults(self, name: str, value: Any) -> list[SchemaFault]:
        """Answer what in ``value`` breaks the agent's output schema; raises AgentNotFound."""
        return self._entry(name).output.find_faults(value)

    def required_inputs(self, name: str) -> tuple[str, ...]:
        """Answer the top-level fields that the agent's input schema requires; raises AgentNotFound."""
        return tuple(self._entry(name).spec.input_schema.get("required", ()))

    def folder(self, name: str) -> Path:
        """Answer the folder the agent lies in; raises AgentNotFound."""
        return self._entry(name).folder

    def _entry(self, name: str) -> _Entry:
        found = self._entries.get(name)
        if found is None:
            near = [repr(known) for known in closest_matches(name, tuple(self._entries), limit=3)]
            hint = f"; did you mean {' or '.join(near)}?" if near else "; GET /agents lists those there are"
            raise AgentNotFound(f"agent {name[:64]!r} was not found{hint}")
        return found


def load_catalogue(agents_dir: Path | None = None) -> AgentCatalogue:
    """Answer the built-in agents and those of ``agents_dir``, a folder of ``<name>/agent_spec.json``.

    Raises SpecError with a line for each fault of all specs: what ``parse_agent_spec`` finds, schemas that are none,
    samples that break them, a missing module, a name that is taken.
    """
    entries: dict[str, _Entry] = {}
    faults: list[str] = []
    for folder in _agent_folders(agents_dir):
        try:
            entry = _load_entry(folder)
        except SpecError as wrong:
            faults.append(wrong.message)
            continue
        if entry.spec.name in entries:
            taken = entries[entry.spec.name].folder
            faults.append(f"{folder / SPEC_FILE}: name {entry.spec.name!r} is taken by {taken}")
        entries.setdefault(entry.spec.name, entry)
    if faults:
        raise SpecError("\n".join(faults))
    return AgentCatalogue(entries.values())


def builtin_agents_dir() -> Path:
    """Answer where the agents that ship with Bucket lie; found by path, for shared never imports worker."""
    return Path(shared.__file__).parent.parent / "worker" / "agents"


def _agent_folders(agents_dir: Path | None) -> Iterator[Path]:
    for home in (builtin_agents_dir(), agents_dir):
        if home is None:
            continue
        if not home.is_dir():
            raise SpecError(f"{home} is not a directory")
        yield from sorted(path for path in home.iterdir() if path.is_dir() and path.name[0] not in "._")


def _load_entry(folder: Path) -> _Entry:
    where = folder / SPEC_FILE
    try:
        raw = orjson.loads(where.read_bytes())
    except FileNotFoundError as missing:
        raise SpecError(f"{where}: is missing") from missing
    except (OSError, ValueError) as wrong:
        raise SpecError(f"{where}: cannot be read: {wrong}") from wrong
    spec = parse_agent_spec(raw, str(where))
    return _compile_entry(spec, folder, str(where))


def _compile_entry(spec: AgentSpec, folder: Path, where: str) -> _Entry:
    checks: dict[str, CompiledSchema] = {}
    faults: list[str] = []
    parts: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "input": (spec.input_schema, spec.sample_input),
        "output": (spec.output_schema, spec.sample_output),
    }
    for part, (schema, sample) in parts.items():
        try:
            checks[part] = CompiledSchema(schema, f"{where}: {part}_schema")
        except SpecError as wrong:
            faults.append(wrong.message)
            continue
        faults += [
            f"{where}: sample_{part} breaks {part}_schema at {fault.pointer or 'its root'}: {fault.message}"
            for fault in checks[part].find_faults(sample)
        ]
    module = folder / f"{spec.entry.partition(':')[0]}.py"
    if not module.is_file():
        faults.append(f"{where}: entry is {spec.entry!r} but there is no {module.name} beside it")
    if faults:
        raise SpecError("\n".join(faults))
    return _Entry(spec, folder, checks["input"], checks["output"])
