"""Agent catalogue (registry): reads and checks every agent's spec at boot; all faults are reported together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

import shared
from shared.catalogue.schema_validator import CompiledSchema, SchemaFault
from shared.domain.definitions.agent_spec import AgentSpec, parse_agent_spec
from shared.domain.lifecycle.simulator_script import SIMULATE_AGENT_NAME, find_script_faults
from shared.errors import AgentNotFound, SpecError
from shared.suggestions import closest_matches

SPEC_FILE: Final = "agent_spec.json"
_BUILTIN_AGENTS_DIR: Final = Path(shared.__file__).parent.parent / "worker" / "agents"  # shared never imports worker


@dataclass(frozen=True, slots=True)
class _Entry:
    spec: AgentSpec
    folder: Path
    input: CompiledSchema
    output: CompiledSchema


class AgentCatalogue:
    """The installed agents with their compiled schemas; built by ``load_catalogue`` and never changed."""

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self._entries = {entry.spec.name: entry for entry in sorted(entries, key=lambda entry: entry.spec.name)}

    def agents(self, domain: str | None = None) -> tuple[AgentSpec, ...]:
        """Return the specs sorted by name: all, or those of one domain."""
        specs = (entry.spec for entry in self._entries.values())
        return tuple(spec for spec in specs if domain is None or domain in spec.domains)

    def has(self, name: str) -> bool:
        """Return whether there is an agent with this name."""
        return name in self._entries

    def agent(self, name: str) -> AgentSpec:
        """Return the spec of one agent; raises AgentNotFound, which suggests similar names."""
        return self._entry(name).spec

    def find_input_faults(self, name: str, value: Any) -> list[SchemaFault]:
        """Return the faults of ``value`` by the agent's input schema, empty if valid; raises AgentNotFound.

        The script of the agent ``simulate`` is checked too.
        """
        faults = self._entry(name).input.find_faults(value)
        if name == SIMULATE_AGENT_NAME and not faults:
            return [SchemaFault(fault.pointer, fault.message) for fault in find_script_faults(value)]
        return faults

    def find_output_faults(self, name: str, value: Any) -> list[SchemaFault]:
        """Return the faults of ``value`` by the agent's output schema, empty if valid; raises AgentNotFound."""
        return self._entry(name).output.find_faults(value)

    def required_inputs(self, name: str) -> tuple[str, ...]:
        """Return the top-level fields that the agent's input schema requires; raises AgentNotFound."""
        return tuple(self._entry(name).spec.input_schema.get("required", ()))

    def folder(self, name: str) -> Path:
        """Return the folder of the agent; raises AgentNotFound."""
        return self._entry(name).folder

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            suggestions = [repr(match) for match in closest_matches(name, tuple(self._entries), limit=3)]
            hint = f"did you mean {' or '.join(suggestions)}?" if suggestions else "GET /agents lists those there are"
            raise AgentNotFound(f"agent {name[:64]!r} was not found; {hint}")
        return entry


def load_catalogue(agents_dir: Path | None = None) -> AgentCatalogue:
    """Load the built-in agents and those of ``agents_dir``, a folder with ``<name>/agent_spec.json``.

    Raises SpecError with a line for each fault of all specs: those of ``parse_agent_spec``, invalid schemas,
    samples that do not match their schema, a missing module, a name that is used twice.
    """
    entries: dict[str, _Entry] = {}
    faults: list[str] = []
    for folder in _agent_folders(agents_dir):
        try:
            entry = _load_entry(folder)
        except SpecError as error:
            faults.append(error.message)
            continue
        first = entries.setdefault(entry.spec.name, entry)
        if first is not entry:
            faults.append(f"{folder / SPEC_FILE}: name {entry.spec.name!r} is taken by {first.folder}")
    if faults:
        raise SpecError("\n".join(faults))
    return AgentCatalogue(entries.values())


def load_one_agent(folder: Path) -> AgentCatalogue:
    """Return a catalogue of the agent in ``folder`` alone; raises SpecError with all its faults."""
    return AgentCatalogue([_load_entry(folder)])


def _agent_folders(agents_dir: Path | None) -> Iterator[Path]:
    for parent in filter(None, (_BUILTIN_AGENTS_DIR, agents_dir)):
        if not parent.is_dir():
            raise SpecError(f"{parent} is not a directory")
        yield from sorted(path for path in parent.iterdir() if path.is_dir() and path.name[0] not in "._")


def _load_entry(folder: Path) -> _Entry:
    path = folder / SPEC_FILE
    try:
        raw = orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise SpecError(f"{path}: is missing") from error
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from error
    return _compile_entry(parse_agent_spec(raw, str(path)), folder, str(path))


def _compile_entry(spec: AgentSpec, folder: Path, source: str) -> _Entry:
    checks: dict[str, CompiledSchema] = {}
    faults: list[str] = []
    for part, schema, sample in (
        ("input", spec.input_schema, spec.sample_input),
        ("output", spec.output_schema, spec.sample_output),
    ):
        try:
            checks[part] = CompiledSchema(schema, f"{source}: {part}_schema")
        except SpecError as error:
            faults.append(error.message)
            continue
        faults += [
            f"{source}: sample_{part} breaks {part}_schema at {fault.pointer or 'its root'}: {fault.message}"
            for fault in checks[part].find_faults(sample)
        ]
    module = folder / f"{spec.entry.partition(':')[0]}.py"
    if not module.is_file():
        faults.append(f"{source}: entry is {spec.entry!r} but there is no {module.name} beside it")
    if faults:
        raise SpecError("\n".join(faults))
    return _Entry(spec, folder, checks["input"], checks["output"])
