"""``bucketd audit`` with real servers: an export verifies, a tampered one and a tampered store do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from api.audit.routes import encode_since
from compose.cli.commands import command_group
from shared.bootstrap import Services, bootstrap
from shared.settings import Settings

Bucketd = Callable[..., Result]


@pytest.fixture
def services(redis_url: str, mongodb_url: str) -> Iterator[Services]:
    built = bootstrap(Settings(redis_url=redis_url, mongodb_url=mongodb_url), "operator")
    built.database.ensure_indexes()
    with closing(built.redis), closing(built.database):
        yield built


@pytest.fixture
def bucketd(services: Services) -> Bucketd:
    servers = {"REDIS_URL": services.settings.redis_url, "MONGODB_URL": services.settings.mongodb_url}

    def run(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(command_group, words, env=servers)
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def key_id(bucketd: Bucketd) -> str:
    """The id of a key that was made, rotated and revoked by commands."""
    made = json.loads(bucketd("keys", "create", "--role", "reader", "--integrator", "acme", "--json").stdout)
    bucketd("keys", "rotate", made["id"])
    bucketd("keys", "revoke", made["id"])
    return str(made["id"])


def test_commands_on_keys_are_events_of_who_ran_them(bucketd: Bucketd, key_id: str) -> None:
    events = [json.loads(line) for line in bucketd("audit", "export").stdout.splitlines()]

    assert [(event["action"], event["object"]) for event in events] == [
        ("key.create", key_id), ("key.rotate", key_id), ("key.revoke", key_id)
    ]  # fmt: skip
    assert all(event["subject"].startswith("bucketd") and event["integrator"] == "acme" for event in events)
    assert "bkt_" not in json.dumps(events)


def test_commands_on_integrations_are_events_without_the_key(bucketd: Bucketd) -> None:
    words = ("--name", "acme", "--use-case", "x", "--data-flow", "x", "--volume", "1", "--contact", "ops@example.com")
    made = json.loads(bucketd("integrations", "request", *words, "--json").stdout)
    bucketd("integrations", "review", made["id"])
    bucketd("integrations", "approve", made["id"])
    bucketd("integrations", "activate", made["id"], code=1)
    bucketd("integrations", "checklist", made["id"], "--done", "all")
    bucketd("integrations", "suspend", made["id"], code=1)
    activated = json.loads(bucketd("integrations", "activate", made["id"], "--json").stdout)
    bucketd("integrations", "suspend", made["id"])

    text = bucketd("audit", "export").stdout
    events = [json.loads(line) for line in text.splitlines()]
    assert [(event["action"].partition(".")[2], event["outcome"]) for event in events] == [
        ("request", "ok"), ("review", "ok"), ("approve", "ok"), ("activate", "refused"), ("checklist", "ok"),
        ("suspend", "refused"), ("activate", "ok"), ("suspend", "ok"),
    ]  # fmt: skip
    assert {(event["object"], event["integrator"]) for event in events} == {(made["id"], "acme")}
    assert events[-2]["after"]["key_id"] == activated["key_id"]
    assert activated["key"] not in text
    assert "bkt_" not in text


def test_an_export_verifies_until_it_is_changed(bucketd: Bucketd, key_id: str, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    exported = bucketd("audit", "export", str(file))
    head = exported.stderr.split()[-1]
    assert "3 events, chain intact" in bucketd("audit", "verify", str(file), "--from-start", "--head", head).stdout

    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[2]]))
    assert "event 2 was removed" in bucketd("audit", "verify", str(file), code=1).stdout
    file.write_text("\n".join([lines[0], lines[1].replace("key.rotate", "key.rotatf"), lines[2]]))
    report = json.loads(bucketd("audit", "verify", str(file), "--json", code=1).stdout)
    assert report["faults"] == ["line 2 was changed: event 2 does not have its hash"]
    file.write_text("\n".join(lines[:2]))
    bucketd("audit", "verify", str(file), "--head", head, code=1)


def test_an_empty_file_is_not_intact_but_a_store_without_events_is(bucketd: Bucketd, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    assert "no events" in bucketd("audit", "export", str(file)).stderr
    file.touch()
    for options in ((), ("--from-start",), ("--after", "0" * 64)):
        assert "it holds no event" in bucketd("audit", "verify", str(file), *options, code=1).stdout
    assert "0 events, chain intact" in bucketd("audit", "verify").stdout


def test_a_later_export_follows_the_one_before(bucketd: Bucketd, key_id: str, tmp_path: Path) -> None:
    first, later = tmp_path / "first.jsonl", tmp_path / "later.jsonl"
    bucketd("audit", "export", str(first))
    bucketd("audit", "export", "--since", encode_since(2), str(later))
    last_before = json.loads(first.read_text().splitlines()[1])["hash"]

    assert f"--after {last_before}" in bucketd("audit", "verify", str(later)).stdout
    bucketd("audit", "verify", str(later), "--after", last_before)
    bucketd("audit", "verify", str(later), "--after", "0" * 64, code=1)
    bucketd("audit", "verify", str(later), "--from-start", code=1)
    assert "was not made by Bucket" in bucketd("audit", "export", "--since", "x", code=1).output


def test_the_store_itself_is_verified(bucketd: Bucketd, key_id: str, services: Services) -> None:
    assert "3 events, chain intact" in bucketd("audit", "verify").stdout

    services.database.collection("audit").update_one({"_id": 2}, {"$set": {"subject": "nobody"}})
    assert "event 2 of the store was changed" in bucketd("audit", "verify", code=1).stdout


def test_a_store_whose_first_events_were_deleted_is_not_intact(
    bucketd: Bucketd, key_id: str, services: Services
) -> None:
    bucketd("audit", "verify")
    services.database.collection("audit").delete_one({"_id": 1})
    assert "the first event, 2, does not follow" in bucketd("audit", "verify", code=1).stdout


@pytest.mark.parametrize(
    "changes",
    [
        {"$unset": {"action": ""}},
        {"$set": {"before": "{bad"}},
        {"$set": {"after": '{"share": NaN}'}},
        {"$set": {"before": '"\\ud800"'}},
        {"$set": {"at": "x"}},
        {"$set": {"subject": b"x"}},
        {"$unset": {"hash": "", "prev_hash": ""}},
    ],
)
def test_an_event_that_was_changed_into_none_is_named_and_exported_as_such(
    bucketd: Bucketd, key_id: str, services: Services, tmp_path: Path, changes: dict[str, Any]
) -> None:
    file = tmp_path / "audit.jsonl"
    bucketd("audit", "verify")
    services.database.collection("audit").update_one({"_id": 3}, changes)

    report = json.loads(bucketd("audit", "verify", "--json", code=1).stdout)
    assert report["faults"] == ["event 3 of the store was changed: event 3 does not have its hash"]
    bucketd("audit", "export", str(file))
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["seq"] for event in events] == [1, 2, 3]
    is_hash_gone = "hash" in changes.get("$unset", ())
    assert events[2]["action"] == ("key.revoke" if is_hash_gone else "audit.unreadable")
    report = json.loads(bucketd("audit", "verify", str(file), "--json", code=1).stdout)
    assert report["faults"] == ["line 3 was changed: event 3 does not have its hash"]
