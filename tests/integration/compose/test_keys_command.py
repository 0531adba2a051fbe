"""``bucketd keys`` and ``bucketd up --auth``, with the whole stack."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from api.dashboard.route_names import DASHBOARD_ROUTES
from compose.embedded import server_plans
from compose.embedded.directory_lock import read_holder_of
from tests.api_client import EVERY_PROCESS
from tests.bucketd_up import bucketd_up
from tests.waiting import wait_until

BUCKETD = [sys.executable, "-c", "from compose.cli import main; main()"]
EXAMPLE = {"config": {"agents": ["cashflow_analyzer"]}, "input_data": {"transactions": []}}


class Authed:
    """A stack that requires keys, and the key that its start printed."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.said = (directory / "said").read_text()
        [self.admin] = re.findall(r"BUCKET_API_KEY=(bkt_\w+)", self.said)

    def bucketd(self, *words: str) -> subprocess.CompletedProcess[str]:
        program = [
            sys.executable,
            "-c",
            "from compose.cli import main; main()",
            *words,
            "--data",
            self.directory / "data",
        ]
        return subprocess.run(program, capture_output=True, text=True, env=dict(os.environ), timeout=30, check=False)

    def json(self, *words: str) -> dict[str, Any]:
        done = self.bucketd(*words, "--json")
        assert done.returncode == 0, done.stderr
        parsed: dict[str, Any] = json.loads(done.stdout)
        return parsed

    def get(self, path: str, key: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", headers={"Authorization": f"Bearer {key}"}, timeout=10)


@pytest.fixture(scope="module")
def authed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authed]:
    directory = tmp_path_factory.mktemp("authed")
    with bucketd_up(directory, options=["--auth"]) as (_, url):
        yield Authed(directory, url)


def test_the_start_prints_the_key_of_an_admin_with_which_the_example_runs(authed: Authed) -> None:
    refused = requests.post(f"{authed.url}/run-basket", json=EXAMPLE, timeout=10)
    assert refused.status_code == 401
    assert "send Authorization: Bearer <key>" in refused.json()["detail"]
    headers = {"Authorization": f"Bearer {authed.admin}", "Prefer": "wait=10"}
    assert requests.post(f"{authed.url}/run-basket", json=EXAMPLE, headers=headers, timeout=20).json()["done"]
    assert "Authorization: Bearer $BUCKET_API_KEY" in authed.said
    startup = [key for key in authed.json("keys", "list")["keys"] if key["name"] == "the start of the stack"]
    assert [key["status"] for key in startup] == ["revoked"]


def test_a_key_is_made_shown_rotated_and_revoked_and_every_process_learns_it(authed: Authed) -> None:
    made = authed.bucketd("keys", "create", "--role", "integrator", "--integrator", "acme", "--baskets", "a, b")
    key = made.stdout.strip()
    assert re.fullmatch(r"bkt_\w{12}_\w{49}", key), made
    assert "warning: /baskets: basket 'a' was not found" in made.stderr
    me = authed.get("/me", key).json()
    assert (me["role"], me["integrator"], me["baskets"]) == ("integrator", "acme", ["a", "b"])
    view = authed.json("keys", "show", me["key_id"])
    assert (view["status"], "key" in view) == ("active", False)

    new = authed.json("keys", "rotate", me["key_id"], "--grace-s", "3600")
    assert new["replaces"]["id"] == me["key_id"]
    assert authed.get("/me", key).status_code == authed.get("/me", new["key"]).status_code == 200

    for found, text in ((me["key_id"], key), (new["key"][:30], new["key"])):  # half a key is enough
        for _ in range(EVERY_PROCESS):  # each process of the API has it in its cache
            assert authed.get("/me", text).status_code == 200
        assert authed.json("keys", "revoke", found)["status"] == "revoked"
        wait_until(lambda: all(authed.get("/me", text).status_code == 401 for _ in range(EVERY_PROCESS)), 10, text)  # noqa: B023
    assert {key["status"] for key in authed.json("keys", "list")["keys"] if key["integrator"] == "acme"} == {"revoked"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["create", "--role", "reader"], "--integrator: is required for this role"),
        (["create", "--role", "boss"], "'boss' is not one of 'reader', 'integrator'"),
        (["create", "--role", "reader", "--integrator", "a b"], "--integrator: must be 1 to 63 letters"),
        (["create", "--role", "reader", "--integrator", "a", "--networks", "here"], "--networks: must be an address"),
        (["create", "--role", "admin", "--expires-days", "0"], "--expires-days: Must be greater than 0"),
        (["create", "--role", "admin", "--integration", "nope"], "bucketd integrations list shows the integrations"),
        (["show", "abcdefghijkl"], "key 'abcdefghijkl' was not found"),
        (["revoke", "abcdefghijkl"], "bucketd keys list shows those there are"),
        (["rotate", "abcdefghijkl"], "was not found"),
    ],
)
def test_a_wrong_command_says_what_to_do(authed: Authed, words: list[str], sentence: str) -> None:
    done = authed.bucketd("keys", *words)
    assert done.returncode in {1, 2}
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_start_makes_no_second_admin(authed: Authed, tmp_path: Path) -> None:
    """With the servers of the first stack, which stay up."""
    listed = authed.json("keys", "list")["keys"]
    sockets = Path(read_holder_of(authed.directory / "data")["sockets"])
    urls = {"REDIS_URL": server_plans.redis_url(sockets), "MONGODB_URL": server_plans.mongodb_url(sockets)}
    with bucketd_up(tmp_path, options=["--auth"], **urls):
        said = (tmp_path / "said").read_text()
    assert "There is an admin's key already" in said
    assert "bkt_" not in said
    admins = [key for key in authed.json("keys", "list")["keys"] if key["role"] == "admin"]
    assert len(admins) == len([key for key in listed if key["role"] == "admin"]) == 1


def test_routes_prints_what_each_route_needs(authed: Authed) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from compose.cli import main; main()", "routes"],
        capture_output=True,
        text=True,
        check=True,
    )
    columns = [re.split(r"\s{2,}", line, maxsplit=1) for line in done.stdout.splitlines()]
    rows = {operation: rest.split(None, 1) for operation, rest in columns}
    assert rows["POST /keys"] == ["administer", "admin"]
    assert rows["GET /openapi.json"] == ["public", "everyone"]
    document = requests.get(f"{authed.url}/openapi.json", timeout=10).json()
    documented = {
        f"{verb.upper()} {path}" for path, item in document["paths"].items() for verb in item if verb != "servers"
    }
    assert set(rows) == documented | set(DASHBOARD_ROUTES)
    assert rows["GET /ui/runs"][0] == "session"
