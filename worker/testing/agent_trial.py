"""Runs one agent outside of a worker, with the checks of a worker: its input, and what it returns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

import worker
from shared.catalogue.agent_catalogue import AgentCatalogue, load_one_agent
from shared.catalogue.agent_entry import SPEC_FILE
from shared.domain.definitions.basket import PARALLEL, Basket, BasketStep
from shared.domain.execution import PUBLIC_INTEGRATOR, Execution, RunError, Step
from shared.domain.status import ExecutionStatus
from shared.errors import AgentNotFound
from worker.agent_loader import Agent, load_agents
from worker.context import AgentContext
from worker.steps.outcome_checks import check_output, join_faults, step_error
from worker.testing.fake_context import FakeContext

DEFAULT_AGENTS_DIR: Final = "my_agents"
BUILTIN_AGENTS_DIR: Final = Path(worker.__file__).parent / "agents"


class TrialFailed(AssertionError):
    """A worker would fail the step, for its input or its output; ``error`` has the error that a poll would show."""

    def __init__(self, error: RunError) -> None:
        super().__init__(f"{error.error_code}: {error.message}")
        self.error = error
        self.error_code = error.error_code


class AgentTrial:
    """One agent with its checks."""

    def __init__(self, catalogue: AgentCatalogue, agent: Agent) -> None:
        self._catalogue = catalogue
        self.agent = agent
        name = agent.spec.name
        self.step = Step(name, name, claims=1)
        self._execution = Execution(
            id=f"1_{0:016x}",
            integrator=PUBLIC_INTEGRATOR,
            basket=Basket(name, PARALLEL, (BasketStep(name, name),)),
            status=ExecutionStatus.RUNNING,
            steps={name: self.step},
            created_at=datetime.now(UTC),
            request_id="req-trial",
        )

    def check_input(self, given: Any) -> None:
        """Raise TrialFailed if ``given`` breaks the agent's input schema."""
        if faults := self._catalogue.find_input_faults(self.agent.spec.name, given):
            message = f"the input breaks the agent's input_schema: {join_faults(faults)}"
            raise TrialFailed(step_error(self.step, "input_invalid", message))

    def check_returned(self, returned: Any) -> dict[str, Any]:
        """Return what the agent returned as a poll would show it; raises TrialFailed if a worker would refuse it."""
        output = check_output(self._catalogue, self._execution, self.step, returned)
        if isinstance(output, RunError):
            raise TrialFailed(output)
        parsed: dict[str, Any] = orjson.loads(output)
        return parsed

    def run(self, given: Mapping[str, Any], ctx: AgentContext) -> dict[str, Any]:
        """Run one attempt; what the agent raises passes. Raises TrialFailed."""
        self.check_input(given)
        return self.check_returned(self.agent.run(orjson.loads(orjson.dumps(given)), ctx))


def run_agent(
    agent: str | Path, given: Mapping[str, Any], ctx: AgentContext | None = None, **differs: Any
) -> dict[str, Any]:
    """Run an agent, by its folder or its name, and return its output, checked by its schemas as a worker checks.

    ``differs`` is what differs in the FakeContext that it gets, or ``ctx`` is a whole context. What the agent raises
    passes; TrialFailed is raised if a worker would refuse the input or the output.
    """
    if ctx is not None and differs:
        raise TypeError("give a whole context or what differs in one, not both")
    return load_agent(find_agent_folder(agent)).run(given, ctx or FakeContext(**differs))


def load_agent(folder: Path) -> AgentTrial:
    """Load the agent of one folder; raises SpecError with all its faults."""
    catalogue = load_one_agent(folder)
    return AgentTrial(catalogue, load_agents(catalogue)[catalogue.agents()[0].name])


def find_agent_folder(agent: str | Path) -> Path:
    """Return the folder of an agent: a path to it, or a name in BUCKET_AGENTS_DIR, ./my_agents or the built-in agents.

    Raises AgentNotFound.
    """
    parents = [Path(), agents_dir(), BUILTIN_AGENTS_DIR]
    for parent in parents:
        folder = (parent / agent).resolve()
        if (folder / SPEC_FILE).is_file():
            return folder
    searched = ", ".join(str(parent) for parent in parents[1:])
    raise AgentNotFound(
        f"there is no agent {str(agent)!r}: no folder with this path, and none of this name in {searched}"
    )


def agents_dir() -> Path:
    """Return the folder of one's own agents: BUCKET_AGENTS_DIR, or ./my_agents."""
    return Path(os.environ.get("BUCKET_AGENTS_DIR") or DEFAULT_AGENTS_DIR)
