"""Loads each agent's callable from its own folder; an agent that cannot be loaded is unavailable, and no other."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import re
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.domain.definitions.agent_spec import AgentSpec
from shared.domain.definitions.unavailability import NO_KEYS_REASON, REASON_MAX_CHARS, Unavailability
from shared.errors import SpecError
from worker.agent_settings import AgentSettings, hide_settings, missing_settings, read_settings
from worker.context import AgentContext

_MISSING_PACKAGE_HINT: Final = (
    "; name its package in requirements.txt beside agent_spec.json, then run: bucketd agents install"
)
AgentFunction = Callable[[dict[str, Any], AgentContext], Any]
_FOLDER_OF_PATH: Final = re.compile(r"(?<![\w/.])/(?:[^\s/'\"():,]+/)+")


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent's specification, its callable and its settings; ``run`` may return or raise anything."""

    spec: AgentSpec
    run: AgentFunction
    settings: Mapping[str, str] = field(default_factory=lambda: AgentSettings({}), repr=False)


@dataclass(frozen=True, slots=True)
class LoadedAgents:
    """The agents that this worker can run, and why it cannot run the others, both by name."""

    agents: Mapping[str, Agent]
    unavailable: Mapping[str, Unavailability]


def load_available_agents(catalogue: AgentCatalogue, *, has_keys: bool = True) -> LoadedAgents:
    """Load every agent that can be loaded and whose required settings are there; log each other one.

    Without encryption keys (``has_keys``) one that marks fields cannot be run. It is a warning, unless the agent is one
    that is not listed until it is set up.
    An agent that lacks a setting is not imported: its module may read the variable. Raises nothing for what an agent
    does, except KeyboardInterrupt.
    """
    agents: dict[str, Agent] = {}
    unavailable = {name: Unavailability(agent.reason) for name, agent in catalogue.broken.items()}
    catalogue.log_faults()
    for spec in catalogue.agents():
        settings = read_settings(spec.settings)
        try:
            if missing := missing_settings(spec.settings, settings):
                unavailable[spec.name] = Unavailability(_missing_text(missing), lacks_settings=True)
            elif catalogue.marks_fields(spec.name) and not has_keys:
                unavailable[spec.name] = Unavailability(NO_KEYS_REASON)
            else:
                agents[spec.name] = _load_agent(spec, catalogue.folder(spec.name), settings)
        except SpecError as error:
            unavailable[spec.name] = Unavailability(error.message)
        if (why := unavailable.get(spec.name)) is not None:
            is_expected = why.lacks_settings and spec.unlisted_without_settings
            log = structlog.get_logger().info if is_expected else structlog.get_logger().warning
            log("an agent is unavailable", agent=spec.name, reason=why.reason)
    return LoadedAgents(types.MappingProxyType(agents), types.MappingProxyType(unavailable))


def load_agents(catalogue: AgentCatalogue) -> Mapping[str, Agent]:
    """Load every agent of the catalogue, by name; raises SpecError with a line for each fault of any agent.

    A setting that is missing is no fault here: it may be there where the agent is to run.
    """
    agents: dict[str, Agent] = {}
    faults = list(catalogue.faults)
    for spec in catalogue.agents():
        try:
            agents[spec.name] = _load_agent(spec, catalogue.folder(spec.name), read_settings(spec.settings))
        except SpecError as error:
            faults.append(f"agent {spec.name!r}: {error.message}")
    if faults:
        raise SpecError("\n".join(faults))
    return types.MappingProxyType(agents)


def _missing_text(names: list[str]) -> str:
    if len(names) == 1:
        return f"the required setting {names[0]} is not set"
    return f"the required settings {', '.join(names)} are not set"


def _load_agent(spec: AgentSpec, folder: Path, settings: AgentSettings) -> Agent:
    """Return the loaded agent; raises SpecError, whose text has neither a path of this server nor a setting's value."""
    try:
        return Agent(spec, _callable_of(spec, folder), settings)
    except (SpecError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever an agent's module raises is its own failure
        _forget_modules(spec.name)
        raise SpecError(_load_fault(error, spec, folder, settings)) from error


def _load_fault(error: BaseException, spec: AgentSpec, folder: Path, settings: Mapping[str, str]) -> str:
    *_, last = traceback.format_exception_only(error)  # never fails, even if the error's own text does
    module = f"{spec.entry.partition(':')[0]}.py"
    lines = [
        f"{Path(frame.filename).name} line {frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(folder)
    ]
    if isinstance(error, SyntaxError) and error.lineno is not None:
        lines.append(f"{Path(error.filename or module).name} line {error.lineno}")
    place = f" ({lines[-1]})" if lines else ""
    text = _FOLDER_OF_PATH.sub("", hide_settings(last.strip(), settings))
    hint = _MISSING_PACKAGE_HINT if isinstance(error, ModuleNotFoundError) else ""
    return f"{module} cannot be loaded: {text[:REASON_MAX_CHARS]}{place}{hint}"


def _forget_modules(agent: str) -> None:
    package = _package_name(agent)
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


def _package_name(agent: str) -> str:
    return f"_bucket_agent_{agent}"


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
    package = types.ModuleType(_package_name(agent))
    package.__path__ = [str(folder)]
    name = f"{package.__name__}.{module_name}"
    path = folder / f"{module_name}.py"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise SpecError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[package.__name__], sys.modules[name] = package, module
    module_spec.loader.exec_module(module)
    return module
