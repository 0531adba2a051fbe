"""Every listed agent, run with its own sample input, does what its specification says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.catalogue.agent_catalogue import AgentCatalogue, load_catalogue
from shared.catalogue.seed_baskets import load_seed_baskets
from shared.domain.definitions.basket import Basket, BasketStep
from shared.domain.definitions.step_input import input_of
from worker.agent_loader import Agent
from worker.context import AgentContext

NAMES = [
    "auto_diagnostics",
    "babbler",
    "big",
    "cashflow_analyzer",
    "chatty",
    "counter",
    "echo",
    "effect",
    "effect_idempotent",
    "fetcher",
    "financial_coordinator",
    "flaky",
    "fuel_efficiency",
    "goal_recommender",
    "gurukul_anomaly",
    "gurukul_feedback",
    "gurukul_trend",
    "keeper",
    "killer",
    "law_agent",
    "memo",
    "raiser",
    "repeater",
    "returner",
    "sanskrit_parser",
    "schedule_agent",
    "simulate",
    "sleeper",
    "sleeper_long",
    "sleeper_once",
    "spawner",
    "statement_import",
    "stubborn",
    "stubborn_soon",
    "teller",
    "text_to_json",
    "ticker",
    "vandal",
    "vedic_quiz_agent",
    "vehicle_maintenance",
    "workflow_agent",
]

CATALOGUE = [
    "auto_diagnostics",
    "fuel_efficiency",
    "gurukul_anomaly",
    "gurukul_feedback",
    "gurukul_trend",
    "sanskrit_parser",
    "schedule_agent",
    "text_to_json",
    "vedic_quiz_agent",
    "vehicle_maintenance",
    "workflow_agent",
]
"""The agents that must say all about their inputs; the others are for tests or simple."""

Contexts = Callable[..., AgentContext]


def test_the_names_below_are_all_the_agents(catalogue: AgentCatalogue) -> None:
    assert [spec.name for spec in catalogue.agents()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_agent_run_with_its_sample_input_gives_its_sample_output(
    name: str, agents: Mapping[str, Agent], new_context: Contexts
) -> None:
    agent = agents[name]
    if agent.spec.unlisted_without_settings:
        pytest.skip("it needs a provider: test_law_agent.py")
    assert agent.run(dict(agent.spec.sample_input), new_context()) == agent.spec.sample_output


@pytest.mark.parametrize("basket", load_seed_baskets(), ids=lambda basket: str(basket["name"]))
def test_a_seeded_basket_runs_on_the_sample_of_its_first_agent(
    basket: dict[str, Any], agents: Mapping[str, Agent], catalogue: AgentCatalogue, new_context: Contexts
) -> None:
    run_input = dict(catalogue.agent(basket["agents"][0]).sample_input)
    steps = tuple(BasketStep(name, name, needs) for name, needs in needs_of(basket).items())
    definition = Basket(basket["name"], basket["execution_strategy"], steps)
    outputs: dict[str, Any] = {}
    for name in basket["agents"]:
        given = input_of(definition, name, run_input, outputs, catalogue.required_inputs(name))
        assert catalogue.find_input_faults(name, given) == []
        outputs[name] = agents[name].run(given, new_context())
        assert catalogue.find_output_faults(name, outputs[name]) == []


def needs_of(basket: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return what each step needs: nothing in a parallel basket, else the step before it."""
    names = basket["agents"]
    before = [(), *((name,) for name in names)] if basket["execution_strategy"] == "sequential" else [()] * len(names)
    return dict(zip(names, before, strict=False))


def test_the_page_of_the_catalogue_names_every_agent_and_basket_that_ships_with_bucket() -> None:
    page = (Path(__file__).parents[4] / "docs" / "catalogue.md").read_text("utf-8")
    names = [spec.name for spec in load_catalogue().agents()] + [str(basket["name"]) for basket in load_seed_baskets()]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_field_of_the_catalogues_inputs_is_described_and_every_list_and_text_has_a_limit(
    catalogue: AgentCatalogue,
) -> None:
    faults = [
        f"{name}: {fault}"
        for name in CATALOGUE
        for field, schema in catalogue.agent(name).input_schema["properties"].items()
        for fault in undescribed(field, schema)
    ]
    assert faults == []


def undescribed(path: str, schema: Mapping[str, Any], *, is_item: bool = False) -> Iterator[str]:
    """Yield what a schema lacks: a description (the items of a list may do without), the limit of a list or a text."""
    if not is_item and "description" not in schema:
        yield f"{path} has no description"
    if schema.get("type") == "array" and "maxItems" not in schema:
        yield f"{path} has no maxItems"
    if "string" in schema.get("type", "") and "maxLength" not in schema and "pattern" not in schema:
        yield f"{path} has no maxLength"
    for field, child in schema.get("properties", {}).items():
        yield from undescribed(f"{path}/{field}", child)
    if "items" in schema:
        yield from undescribed(f"{path}/*", schema["items"], is_item=True)


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


def _with_floats(value: Any) -> Any:
    """Write each whole number as JSON Schema takes it too: 5 as 5.0."""
    if isinstance(value, dict):
        return {name: _with_floats(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_with_floats(child) for child in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("auto_diagnostics", {}),
        ("gurukul_trend", {"window": 2}),
        ("schedule_agent", {"buffer_minutes": 15}),
        ("simulate", {"script": [], "result_bytes": 100}),
        ("vedic_quiz_agent", {}),
        ("vehicle_maintenance", {"intervals": [{"type": "oil_change", "months": 6}]}),
        ("workflow_agent", {}),
    ],
)
def test_a_whole_number_may_be_written_with_a_decimal_point(
    name: str, changes: dict[str, Any], agents: Mapping[str, Agent], run_agent: Callable[..., dict[str, Any]]
) -> None:
    given = agents[name].spec.sample_input | changes
    assert run_agent(name, _with_floats(given)) == run_agent(name, given)
