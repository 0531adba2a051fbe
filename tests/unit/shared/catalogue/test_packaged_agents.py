"""Agents of installed packages are found by their entry points, and no code of the packages runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared.catalogue.agent_catalogue import load_catalogue
from tests.unit.shared.catalogue.test_agent_catalogue import BUILT_IN, write_agent

EXPLODES = "raise SystemExit('this package was imported')\n"


def install(site: Path, *entry_points: str) -> None:
    """Write what an installer would leave: the metadata of a distribution with these entry points."""
    info = site / "rates_agents-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rates-agents\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[bucket.agents]", *entry_points, ""]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of installed packages with the package ``rates_agents``, which holds two agents."""
    package = tmp_path / "rates_agents"
    package.mkdir()
    (package / "__init__.py").write_text(EXPLODES)
    for name in ("daily_rate", "weekly_rate"):
        (write_agent(package, name) / "__init__.py").write_text(EXPLODES)
    (package / "tests").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("rates_agents", ["daily_rate", "weekly_rate"]),
        ("rates_agents.daily_rate", ["daily_rate"]),
        ("rates_agents.daily_rate.agent:run", ["daily_rate"]),
    ],
)
def test_an_entry_point_leads_to_one_agent_or_to_several(site: Path, value: str, names: list[str]) -> None:
    install(site, f"rates = {value}")
    catalogue = load_catalogue()
    assert catalogue.faults == []
    assert [spec.name for spec in catalogue.agents()] == sorted([*BUILT_IN, *names])
    assert catalogue.folder("daily_rate") == site / "rates_agents" / "daily_rate"


def test_two_entry_points_of_one_folder_are_one_agent(site: Path) -> None:
    install(site, "a = rates_agents", "b = rates_agents.weekly_rate")
    assert load_catalogue().faults == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_package.agent", "package no_such_package is not installed"),
        ("rates_agents.hourly", "package rates_agents has no hourly"),
        ("rates_agents.tests", "holds no agent_spec.json, nor does a folder in it"),
        ("lonely", "lonely is a single module; an agent is a folder, so name a package"),
        ("..", "package  cannot be found: ValueError"),
    ],
)
def test_an_entry_point_that_leads_to_no_agent_is_an_unavailable_one(site: Path, value: str, reason: str) -> None:
    (site / "lonely.py").write_text(EXPLODES)
    install(site, f"rates = {value}", "weekly = rates_agents.weekly_rate")
    catalogue = load_catalogue()
    assert catalogue.has("weekly_rate")
    assert list(catalogue.broken) == ["rates"]
    assert catalogue.broken["rates"].reason.endswith(reason)
    (fault,) = catalogue.faults
    assert fault.startswith(f"entry point rates = {value} of rates-agents: ")


def test_a_wrong_spec_in_a_package_is_an_unavailable_agent(site: Path) -> None:
    (site / "rates_agents" / "daily_rate" / "agent_spec.json").write_text("{")
    install(site, "rates = rates_agents")
    catalogue = load_catalogue()
    assert list(catalogue.broken) == ["daily_rate"]
    assert catalogue.broken["daily_rate"].reason.startswith("agent_spec.json: cannot be read")
    assert catalogue.has("weekly_rate")


def test_a_package_with_malformed_metadata_stops_no_other(site: Path) -> None:
    install(site, "rates = rates_agents")
    info = site / "malformed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: malformed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bucket.agents]\nno equals sign\n")
    with capture_logs() as lines:
        catalogue = load_catalogue()
    assert catalogue.has("daily_rate")
    assert [line["package"] for line in lines] == ["malformed"]
