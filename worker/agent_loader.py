"""Loads each agent's callable from its own folder, and nothing else; all faults are reported together."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import os
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shared.catalogue.agent_catalogue import AgentCatalogue, load_catalogue
from shared.domain.definitions.agent_spec import AgentSpec
from shared.errors import SpecError
from worker.context import AgentContext

_MISSING_PACKAGE_HINT: Final = (
    "; name its package in requirements.txt beside agent_spec.json, then run: bucketd agents install"
)
AgentFunction = Callable[[dict[str, Any], AgentContext], Any]


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent's specification, its callable and its settings; ``run`` may return or raise anything."""

    spec: AgentSpec
    run: AgentFunction
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)


def load_agents(catalogue: AgentCatalogue) -> Mapping[str, Agent]:
    """Load every agent of the catalogue, by name; raises SpecError with a line for each that cannot be loaded."""
    agents: dict[str, Agent] = {}
    faults: list[str] = []
    for spec in catalogue.agents():
        try:
            agents[spec.name] = Agent(spec, _callable_of(spec, catalogue.folder(spec.name)), _settings_of(spec))
        except SpecError as error:
            faults.append(f"agent {spec.name!r}: {error.message}")
    if faults:
        raise SpecError("\n".join(faults))
    return types.MappingProxyType(agents)


def check_agents(agents_dir: Path | None) -> list[str]:
    """Return a line for each agent that was found and loaded; raises SpecError with all faults."""
    catalogue = load_catalogue(agents_dir)
    return [
        f"{name} {agent.spec.version} ({', '.join(agent.spec.domains)}) from {catalogue.folder(name)}"
        for name, agent in load_agents(catalogue).items()
    ]


def _settings_of(spec: AgentSpec) -> Mapping[str, str]:
    return {setting.name: value for setting in spec.settings if (value := os.environ.get(setting.name))}


def _callable_of(spec: AgentSpec, folder: Path) -> AgentFunction:
    module_name, _, function_name = spec.entry.partition(":")
    module = _load_module(spec.name, folder, module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SpecError(f"entry is {spec.entry!r} but {module_name}.py has no callable {function_name!r}")
    try:
        inspect.signature(function).bind({}, None)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{spec.entry} must take two arguments, (given, ctx): {error}") from error

    @functools.wraps(function)
    def run(given: dict[str, Any], ctx: AgentContext) -> Any:
        outcome = function(given, ctx)
        return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome

    return run


def _load_module(agent: str, folder: Path, module_name: str) -> types.ModuleType:
    # A private package for each folder: two files agent.py never collide, and `from . import other` stays within it.
    package = types.ModuleType(f"_bucket_agent_{agent}")
    package.__path__ = [str(folder)]
    name = f"{package.__name__}.{module_name}"
    path = folder / f"{module_name}.py"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise SpecError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[package.__name__], sys.modules[name] = package, module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[package.__name__], sys.modules[name]
        hint = _MISSING_PACKAGE_HINT if isinstance(error, ModuleNotFoundError) else ""
        raise SpecError(f"{path} cannot be loaded: {type(error).__name__}: {error}{hint}") from error
    return module
