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
