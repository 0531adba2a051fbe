"""An agent context without a runner: log lines go to a list, the ledger is in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.catalogue.agent_catalogue import AgentCatalogue, load_catalogue
from worker.agent_loader import Agent, load_agents
from worker.context import AgentContext
from worker.testing import FakeContext, InMemoryLedger


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger()


@pytest.fixture
def new_context(ledger: InMemoryLedger) -> Callable[..., AgentContext]:
    def make(**changes: Any) -> AgentContext:
        return FakeContext(**{"ledger": ledger} | changes)

    return make


@pytest.fixture(scope="session")
def catalogue() -> AgentCatalogue:
    return load_catalogue(Path(__file__).parents[3] / "agents")


@pytest.fixture(scope="session")
def agents(catalogue: AgentCatalogue) -> Mapping[str, Agent]:
    return load_agents(catalogue)


@pytest.fixture
def run_agent(agents: Mapping[str, Agent], catalogue: AgentCatalogue, new_context: Callable[..., AgentContext]) -> Any:
    """Run an agent by name as a worker does: its input and its output must be valid by its schemas."""

    def run(name: str, given: dict[str, Any]) -> dict[str, Any]:
        assert catalogue.find_input_faults(name, given) == []
        output: dict[str, Any] = agents[name].run(given, new_context())
        assert catalogue.find_output_faults(name, output) == []
        return output

    return run
