"""``bucketd integrations`` with real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compose.cli.commands import command_group
from shared.bootstrap import Services, bootstrap
from shared.settings import Settings

REQUEST = (
    *("integrations", "request", "--name", "acme", "--use-case", "totals", "--data-flow", "amounts in, totals out"),
    *(
        "--agents",
        "financial_coordinator",
        "--baskets",
        "working_test",
        "--volume",
        "100",
        "--contact",
        "ops@example.com",
    ),
)


@pytest.fixture
def services(redis_url: str, mongodb_url: str) -> Iterator[Services]:
    built = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "operator")
    with closing(built.redis), closing(built.database):
        built.prepare()
        yield built


def bucketd(services: Services, *words: str) -> Result:
    servers = {"REDIS_URL": services.settings.redis_url, "MONGODB_URL": services.settings.mongodb_url}
    return CliRunner().invoke(command_group, words, env=servers)


def bucketd_json(services: Services, *words: str) -> dict[str, Any]:
    result = bucketd(services, *words, "--json")
    assert result.exit_code == 0, result.output
    view: dict[str, Any] = json.loads(result.stdout)
    return view


def test_an_integration_goes_from_its_request_to_its_key_and_is_suspended(services: Services) -> None:
    requested = bucketd_json(services, *REQUEST)
    integration_id = requested["id"]
    assert (requested["status"], requested["volume"]) == ("requested", 100)

    def run(command: str, *words: str) -> dict[str, Any]:
        return bucketd_json(services, "integrations", command, integration_id, *words)

    assert run("review")["status"] == "in_review"
    assert run("request-changes", "--comment", "who is on call?")["status"] == "changes_requested"
    assert run("review")["status"] == "in_review"
    assert run("approve")["status"] == "approved"
    assert run("checklist", "--done", "all", "--open", "data_minimised")["percentage"] == 94
    open_item = bucketd(services, "integrations", "activate", integration_id)
    assert open_item.exit_code == 1
    assert "open are: data_minimised" in " ".join(open_item.output.split())
    assert "bucketd integrations checklist ID" in open_item.output
    assert run("checklist", "--done", "data_minimised")["percentage"] == 100

    activated = bucketd(services, "integrations", "activate", integration_id)
    assert activated.exit_code == 0, activated.output
    key = services.keys.get(run("show")["key_id"])
    assert activated.stdout.strip().startswith(f"bkt_{key.id}_"), "the key alone, for KEY=$(...)"
    assert (key.integrator, key.integration, key.baskets) == ("acme", integration_id, ("working_test",))
    assert run("suspend", "--comment", "leak")["status"] == "suspended"

    assert f"{integration_id}  suspended         100 %  acme" in bucketd(services, "integrations", "list").output
    assert bucketd_json(services, "integrations", "list", "--status", "active") == {"integrations": []}
    shown = bucketd(services, "integrations", "show", integration_id).output
    assert "request_changes by bucketd" in shown
    assert "who is on call?" in shown


def test_a_faulty_request_says_what_is_wrong(services: Services) -> None:
    refused = bucketd(services, *REQUEST, "--agents", "financial_cordinator")
    assert refused.exit_code == 1
    assert "financial_coordinator" in " ".join(refused.output.split())
    assert bucketd(services, "integrations", "show", "itg_0").exit_code == 1


def test_a_wrong_command_says_what_shows_the_right_words(services: Services) -> None:
    integration_id = bucketd_json(services, *REQUEST)["id"]
    for words, hint in (
        (("checklist", integration_id, "--done", "data_minimized"), "checklist ID shows the items"),
        (("checklist", "itg_0", "--done", "data_minimised"), "list shows those there are"),
        (("review", integration_id, "--comment", "x" * 2_000), "review --help shows the options"),
    ):
        refused = bucketd(services, "integrations", *words)
        assert refused.exit_code == 1
        assert f"bucketd integrations {hint}" in " ".join(refused.output.split()), refused.output


def test_one_that_cannot_be_read_is_left_out_of_the_list(services: Services) -> None:
    broken = bucketd_json(services, *REQUEST)["id"]
    other = bucketd_json(services, *REQUEST, "--name", "zeta")["id"]
    services.database.collection("integrations").update_one({"_id": broken}, {"$unset": {"ticks": ""}})
    listed = bucketd_json(services, "integrations", "list")["integrations"]
    assert [each["id"] for each in listed] == [other]
    shown = bucketd(services, "integrations", "show", broken)
    assert (shown.exit_code, "cannot be read" in " ".join(shown.output.split())) == (1, True)
