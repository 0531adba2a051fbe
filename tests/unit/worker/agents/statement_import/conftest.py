"""The agent, run on a text without a runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shared.catalogue.agent_catalogue import AgentCatalogue
from worker.agent_loader import Agent
from worker.context import AgentContext

STATEMENTS = Path(__file__).parent / "statements"


@pytest.fixture
def import_text(
    agents: Mapping[str, Agent], catalogue: AgentCatalogue, new_context: Callable[..., AgentContext]
) -> Callable[..., dict[str, Any]]:
    """Import a text; the output is checked against the agent's schema each time."""

    def read(text: str, **options: str) -> dict[str, Any]:
        output: dict[str, Any] = agents["statement_import"].run({"text": text, **options}, new_context())
        assert catalogue.find_output_faults("statement_import", output) == []
        return output

    return read


@pytest.fixture
def import_file(import_text: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Import one of the statements beside this file; ``total`` and ``amounts`` are added, as exact text."""

    def read(name: str, **options: str) -> dict[str, Any]:
        output = import_text((STATEMENTS / name).read_bytes().decode(), **options)
        amounts = [Decimal(repr(each["amount"])) for each in output["transactions"]]
        return output | {"total": f"{sum(amounts):f}", "amounts": [f"{amount:f}" for amount in amounts]}

    return read
