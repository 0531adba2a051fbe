"""A provider on a real HTTP server, and contexts whose agent speaks to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest

from shared.catalogue.agent_catalogue import AgentCatalogue
from tests.finance_provider import FinanceProvider, PlainHttp, serve
from worker.agent_loader import Agent
from worker.context import AgentContext

Act = Callable[..., dict[str, Any]]


@pytest.fixture
def provider() -> Iterator[FinanceProvider]:
    """Serve a provider without transactions; a test fills it."""
    with serve(FinanceProvider({})) as provider:
        yield provider


@pytest.fixture
def provider_context(
    provider: FinanceProvider, new_context: Callable[..., AgentContext]
) -> Iterator[Callable[..., AgentContext]]:
    """Return a function that makes a context whose settings name the provider."""
    with closing(PlainHttp()) as http:
        defaults: dict[str, Any] = {"http": http, "settings": {"FINANCIAL_COORDINATOR_API_URL": provider.url}}
        yield lambda **changes: new_context(**defaults | changes)


@pytest.fixture
def act(agents: Mapping[str, Agent], provider_context: Callable[..., AgentContext], catalogue: AgentCatalogue) -> Act:
    """Return a function that runs the agent at the provider, and checks its input and output by their schemas."""

    def run(action: str, ctx: AgentContext | None = None, **given: Any) -> dict[str, Any]:
        given = {"action": action, **given}
        assert catalogue.find_input_faults("financial_coordinator", given) == []
        output: dict[str, Any] = agents["financial_coordinator"].run(given, ctx or provider_context())
        assert catalogue.find_output_faults("financial_coordinator", output) == []
        return output

    return run
