"""Every listed agent, run with its own sample input, does what its specification says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.catalogue.agent_catalogue import AgentCatalogue
from shared.catalogue.seed_baskets import load_seed_baskets
from worker.agent_loader import Agent
from worker.context import AgentContext

NAMES = [
    "big",
    "cashflow_analyzer",
    "chatty",
    "counter",
    "echo",
    "effect",
    "effect_idempotent",
    "financial_coordinator",
    "flaky",
    "goal_recommender",
    "killer",
    "memo",
    "raiser",
    "returner",
    "simulate",
    "sleeper",
    "sleeper_long",
    "sleeper_once",
    "spawner",
    "statement_import",
    "stubborn",
    "stubborn_soon",
    "ticker",
    "vandal",
]

Contexts = Callable[..., AgentContext]


def test_the_names_below_are_all_the_agents(catalogue: AgentCatalogue) -> None:
    assert [spec.name for spec in catalogue.agents()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_agent_run_with_its_sample_input_gives_its_sample_output(
    name: str, agents: Mapping[str, Agent], new_context: Contexts
) -> None:
    agent = agents[name]
    assert agent.run(dict(agent.spec.sample_input), new_context()) == agent.spec.sample_output


@pytest.mark.parametrize("basket", load_seed_baskets(), ids=lambda basket: str(basket["name"]))
def test_a_seeded_basket_runs_on_the_sample_of_its_first_agent(
    basket: dict[str, Any], agents: Mapping[str, Agent], catalogue: AgentCatalogue, new_context: Contexts
) -> None:
    given = dict(catalogue.agent(basket["agents"][0]).sample_input)
    for name in basket["agents"]:
        assert catalogue.find_input_faults(name, given) == []
        given = agents[name].run(given, new_context())
        assert catalogue.find_output_faults(name, given) == []


@pytest.mark.parametrize(
    ("kind", "is_so"),
    [
        ("nan", lambda output: math.isnan(output["value"])),
        ("bigint", lambda output: output["value"] > 2**63 - 1),
        ("surrogate", lambda output: output["value"] == "\ud800"),
        ("nul_key", lambda output: "\0" in next(iter(output))),
        ("deep", lambda output: repr(output).count("{") > 200),
        ("error_key", lambda output: "error" in output),
        ("too_large", lambda output: len(output["value"]) > 4 * 1024 * 1024),
        ("not_object", lambda output: not isinstance(output, dict)),
    ],
)
def test_the_returner_returns_values_that_are_refused(
    kind: str, is_so: Callable[[Any], bool], agents: Mapping[str, Agent], new_context: Contexts
) -> None:
    assert is_so(agents["returner"].run({"kind": kind}, new_context()))


def test_the_returner_breaks_its_schema(
    catalogue: AgentCatalogue, agents: Mapping[str, Agent], new_context: Contexts
) -> None:
    output = agents["returner"].run({"kind": "bad_schema"}, new_context())
    assert [fault.pointer for fault in catalogue.find_output_faults("returner", output)] == ["/kind"]


@pytest.mark.parametrize(
    "kind",
    ["ValueError", "MemoryError", "SystemExit", "KeyboardInterrupt", "RecursionError", "TransientError"],
)
def test_the_raiser_raises_the_requested_exception(
    kind: str, agents: Mapping[str, Agent], new_context: Contexts
) -> None:
    with pytest.raises(BaseException, match="told to raise") as raised:
        agents["raiser"].run({"kind": kind}, new_context())
    assert type(raised.value).__name__ == kind


def test_the_sleeper_wakes_when_it_is_cancelled(agents: Mapping[str, Agent], new_context: Contexts) -> None:
    ctx = new_context()
    ctx.cancel.set()
    assert agents["sleeper"].run({"seconds": 3600}, ctx) == {"slept": True, "cancelled": True}


def test_the_counter_leaves_a_line_for_each_run(
    agents: Mapping[str, Agent], new_context: Contexts, tmp_path: Path
) -> None:
    file = tmp_path / "runs"
    for attempt in (1, 2):
        agents["counter"].run({"file": str(file)}, new_context(attempt=attempt))
    assert file.read_text().split() == [f"1763700000_89ce24ad1b2c3d4e:step:{attempt}" for attempt in (1, 2)]
