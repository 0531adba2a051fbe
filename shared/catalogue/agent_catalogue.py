"""Agent catalogue (registry): reads and checks every agent's spec at boot; a wrong one makes that agent unavailable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

import structlog

import shared
from shared.catalogue.agent_entry import SPEC_FILE, AgentEntry, BrokenAgent, load_entry, read_agent
from shared.catalogue.packaged_agents import find_packaged_agents
from shared.catalogue.schema_validator import SchemaFault
from shared.domain.definitions.agent_spec import AgentSpec
from shared.domain.definitions.basket import BULK_AGENT_NAME
from shared.domain.definitions.unavailability import agent_unavailable
from shared.domain.lifecycle.simulator_script import SIMULATE_AGENT_NAME, find_script_faults
from shared.errors import AgentNotFound, SpecError
from shared.suggestions import closest_matches

_BUILTIN_AGENTS_DIR: Final = Path(shared.__file__).parent.parent / "worker" / "agents"  # shared never imports worker


class AgentCatalogue:
    """The installed agents with their compiled schemas; built by ``load_catalogue`` and never changed.

    ``broken`` are the agents whose specs are wrong, by name. ``has_marks``: whether any agent marks a field as secret.
    """

    def __init__(
        self, entries: Iterable[AgentEntry], broken: Iterable[BrokenAgent] = (), duplicates: Iterable[str] = ()
    ) -> None:
        """``duplicates`` say which agents are ignored because another one has their name."""
        self._entries = {entry.spec.name: entry for entry in sorted(entries, key=lambda entry: entry.spec.name)}
        self.has_marks = any(entry.marks_input or entry.marks_output for entry in self._entries.values())
        self.broken = {agent.name: agent for agent in sorted(broken, key=lambda agent: agent.name)}
        self._duplicates = tuple(duplicates)

    @property
    def faults(self) -> list[str]:
        """What is wrong with the specs, a line for each fault, with the paths of their files."""
        return [fault for agent in self.broken.values() for fault in agent.faults] + list(self._duplicates)

    def log_faults(self) -> None:
        """Log a warning for each agent whose spec is wrong, and for each name that is used twice."""
        log = structlog.get_logger()
        for name, agent in self.broken.items():
            log.warning("an agent is unavailable", agent=name, reason="; ".join(agent.faults))
        for duplicate in self._duplicates:
            log.warning("an agent is ignored", reason=duplicate)

    def agents(self, domain: str | None = None) -> tuple[AgentSpec, ...]:
        """Return the specs sorted by name: all, or those of one domain."""
        specs = (entry.spec for entry in self._entries.values())
        return tuple(spec for spec in specs if domain is None or domain in spec.domains)

    def has(self, name: str) -> bool:
        """Return whether there is an agent with this name whose spec is right."""
        return name in self._entries

    def agent(self, name: str) -> AgentSpec:
        """Return the spec of one agent; raises AgentNotFound, which suggests similar names.

        This and the methods below raise AgentUnavailable if the spec is wrong.
        """
        return self._entry(name).spec

    def check_known(self, name: str) -> None:
        """Raise AgentNotFound if there is no agent with this name, neither a right nor a broken one."""
        if name not in self.broken:
            self._entry(name)

    def find_input_faults(self, name: str, value: Any) -> list[SchemaFault]:
        """Return the faults of ``value`` by the agent's input schema, empty if valid; raises AgentNotFound.

        The script of the agent ``simulate`` is checked too.
        """
        if name == BULK_AGENT_NAME:  # the engine's own, which has no spec; the API has checked its input
            return []
        faults = self._entry(name).input.find_faults(value)
        if name == SIMULATE_AGENT_NAME and not faults:
            return [SchemaFault(fault.pointer, fault.message) for fault in find_script_faults(value)]
        return faults

    def find_output_faults(self, name: str, value: Any) -> list[SchemaFault]:
        """Return the faults of ``value`` by the agent's output schema, empty if valid; raises AgentNotFound."""
        return [] if name == BULK_AGENT_NAME else self._entry(name).output.find_faults(value)

    def required_inputs(self, name: str) -> tuple[str, ...]:
        """Return the top-level fields that the agent's input schema requires; raises AgentNotFound."""
        return () if name == BULK_AGENT_NAME else tuple(self._entry(name).spec.input_schema.get("required", ()))

    def marked_input_schema(self, agent: str) -> Mapping[str, Any] | None:
        """Return the agent's input schema if it marks a field; None if not, or if there is no such agent."""
        entry = self._entries.get(agent)
        return entry.spec.input_schema if entry is not None and entry.marks_input else None

    def marked_output_schema(self, agent: str) -> Mapping[str, Any] | None:
        """Return the agent's output schema if it marks a field; None if not, or if there is no such agent."""
        entry = self._entries.get(agent)
        return entry.spec.output_schema if entry is not None and entry.marks_output else None

    def marks_fields(self, agent: str) -> bool:
        """Return whether a schema of the agent marks a field, so that it needs keys to seal what it is given."""
        entry = self._entries.get(agent)
        return entry is not None and (entry.marks_input or entry.marks_output)

    def folder(self, name: str) -> Path:
        """Return the folder of the agent; raises AgentNotFound."""
        return _BUILTIN_AGENTS_DIR if name == BULK_AGENT_NAME else self._entry(name).folder

    def _entry(self, name: str) -> AgentEntry:
        entry = self._entries.get(name)
        if entry is None:
            if name in self.broken:
                raise agent_unavailable({name: self.broken[name].reason})
            suggestions = [repr(match) for match in closest_matches(name, tuple(self._entries), limit=3)]
            hint = f"did you mean {' or '.join(suggestions)}?" if suggestions else "GET /agents lists those there are"
            raise AgentNotFound(f"agent {name[:64]!r} was not found; {hint}")
        return entry


def load_catalogue(agents_dir: Path | None = None) -> AgentCatalogue:
    """Load the built-in agents, those of ``agents_dir`` (``<name>/agent_spec.json``) and those of installed packages.

    A wrong spec makes its agent unavailable, and no other. Raises SpecError only if a directory cannot be read.
    """
    entries: dict[str, AgentEntry] = {}
    broken: dict[str, BrokenAgent] = {}
    folders: dict[str, Path] = {}
    duplicates: list[str] = []
    for found in chain(_agent_folders(agents_dir), find_packaged_agents()):
        agent = read_agent(found) if isinstance(found, Path) else found
        name = agent.spec.name if isinstance(agent, AgentEntry) else agent.name
        if name in entries or name in broken:
            place = found / SPEC_FILE if isinstance(found, Path) else found.faults[0]
            duplicates.append(f"{place}: name {name!r} is taken by {folders.get(name, 'another entry point')}")
            continue
        if isinstance(found, Path):
            folders[name] = found
        if isinstance(agent, AgentEntry):
            entries[name] = agent
        else:
            broken[name] = agent
    return AgentCatalogue(entries.values(), broken.values(), duplicates)


def load_one_agent(folder: Path) -> AgentCatalogue:
    """Return a catalogue of the agent in ``folder`` alone; raises SpecError with all its faults."""
    return AgentCatalogue([load_entry(folder)])


def _agent_folders(agents_dir: Path | None) -> Iterator[Path]:
    for parent in filter(None, (_BUILTIN_AGENTS_DIR, agents_dir)):
        if not parent.is_dir():
            raise SpecError(f"{parent} is not a directory")
        try:
            yield from sorted(path for path in parent.iterdir() if path.is_dir() and path.name[0] not in "._")
        except OSError as error:
            raise SpecError(f"{parent} cannot be read: {error.strerror}") from error
