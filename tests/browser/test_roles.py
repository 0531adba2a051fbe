"""Where keys are required: the log-in, what each role sees and may do, and how a session ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import requests
from playwright.sync_api import expect

from tests.api_client import AGENTS
from tests.browser.conftest import OpenWindow
from tests.browser.submitter import Submitter
from tests.browser.visitor import Visitor
from tests.stack import Stack

BUTTONS_OF_RUNS: Final = frozenset({"Cancel", "Cancel selected", "Run"})
BUTTONS: Final[Mapping[str, frozenset[str]]] = {
    "reader": frozenset(),
    "auditor": frozenset(),
    "integrator": BUTTONS_OF_RUNS,
    "author": BUTTONS_OF_RUNS,
    "operator": BUTTONS_OF_RUNS | {"Requeue", "Dismiss"},
    "admin": BUTTONS_OF_RUNS | {"Requeue", "Dismiss"},
}
SECRET: Final = "only the owner may read this"


@dataclass(frozen=True)
class Keys:
    """Makes and revokes keys over the API, with the key of an admin."""

    stack: Stack
    admin: str

    def make(self, role: str, integrator: str = "acme") -> dict[str, Any]:
        """Make a key; return what POST /keys replies."""
        return Submitter(self.stack, self.admin).call("POST", "/keys", {"role": role, "integrator": integrator})

    def revoke(self, key_id: str) -> None:
        """Revoke a key."""
        Submitter(self.stack, self.admin).call("DELETE", f"/keys/{key_id}")


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    pepper = "a pepper of more than thirty-two characters"
    return make_stack(BUCKET_AUTH="required", BUCKET_KEY_PEPPER=pepper, BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture(scope="module")
def keys(stack: Stack) -> Keys:
    command = [Path(sys.executable).parent / "bucketd", "keys", "create", "--role", "admin", "--integrator", "acme"]
    made = subprocess.run([*command, "--json"], env=stack.environ, capture_output=True, text=True, check=True)
    return Keys(stack, json.loads(made.stdout)["key"])


@pytest.fixture(scope="module")
def ids(stack: Stack, keys: Keys) -> dict[str, str]:
    """Return a run that runs, and one that has failed, both of acme."""
    runs = Submitter(stack, keys.make("integrator")["key"])
    found = {"failed": runs.dead_letter(), "running": runs.simulate("running:600"), "done": runs.submit(
        input_data={"transactions": [{"id": 1, "amount": 1, "description": SECRET}]})}  # fmt: skip
    runs.ended(found["done"])
    return found


def seen_buttons(visitor: Visitor) -> set[str]:
    """Return the names of the buttons on a page that do something, without the one to log out."""
    shown = visitor.page.locator("main").get_by_role("button").or_(visitor.page.locator("main a.button"))
    return {text.strip() for text in shown.all_inner_texts()} - {"Filter", ""}


@pytest.mark.parametrize("role", BUTTONS)
def test_a_role_sees_the_buttons_that_it_may_press_and_no_others(
    role: str, keys: Keys, ids: dict[str, str], open_window: OpenWindow
) -> None:
    visitor = open_window()
    visitor.expect_errors("status of 403")  # of the dead letters
    visitor.open("/ui/runs")
    visitor.log_in(keys.make(role)["key"])
    expect(visitor.page.locator("h1")).to_have_text("Runs")
    expect(visitor.page.locator(".who")).to_contain_text(f"{role} · acme")
    found = seen_buttons(visitor)
    for path in (f"/ui/runs/{ids['running']}", "/ui/baskets", "/ui/dead-letters"):
        visitor.open(path)
        found |= seen_buttons(visitor)
    may, others = BUTTONS[role], frozenset().union(*BUTTONS.values())
    assert may <= found, may - found
    assert not (others - may) & found


@pytest.mark.parametrize(("role", "is_shown"), [("reader", False), ("integrator", True)])
def test_contents_are_hidden_from_a_role_that_may_not_read_them(
    role: str, keys: Keys, ids: dict[str, str], open_window: OpenWindow, *, is_shown: bool
) -> None:
    visitor = open_window()
    visitor.open(f"/ui/runs/{ids['done']}")
    visitor.log_in(keys.make(role)["key"])
    expect(visitor.page.locator("h1")).to_contain_text("working_test")
    assert (SECRET in visitor.page.content()) is is_shown


def test_the_log_in_leads_to_the_page_that_was_asked_for_and_keeps_the_key_to_itself(
    keys: Keys, ids: dict[str, str], visitor: Visitor, axe: str
) -> None:
    made = keys.make("operator")
    visitor.open(f"/ui/runs/{ids['failed']}")
    assert "/ui/login" in visitor.page.url
    assert visitor.serious_faults(axe) == []
    visitor.log_in(made["key"])
    expect(visitor.page).to_have_url(f"{visitor.url}/ui/runs/{ids['failed']}")
    [cookie] = visitor.cookies()
    assert cookie["httpOnly"] is True
    assert cookie["sameSite"] == "Strict"
    assert made["key"] not in json.dumps(visitor.cookies()) + visitor.page.content()
    assert visitor.page.evaluate("document.cookie") == ""
    secret = {cookie["name"]: cookie["value"]}
    assert requests.get(f"{visitor.url}/executions", cookies=secret, timeout=10).status_code == 401
    stored = list(keys.stack.redis().scan_iter("*session*"))
    assert stored
    assert not [key for key in stored if cookie["value"] in key]


def test_a_wrong_key_is_refused_in_words(visitor: Visitor) -> None:
    visitor.expect_errors("status of 403")
    visitor.open("/")
    visitor.log_in("bkt_wrong")
    expect(visitor.page.get_by_role("alert")).to_have_text("This key is not valid.")


def test_a_key_that_is_revoked_ends_its_open_page(keys: Keys, visitor: Visitor) -> None:
    made = keys.make("operator")
    visitor.open("/ui/runs")
    visitor.log_in(made["key"])
    expect(visitor.page.locator("h1")).to_have_text("Runs")
    keys.revoke(made["id"])
    expect(visitor.page.locator("h1")).to_have_text("Log in", timeout=15_000)


def test_log_out_ends_the_session(keys: Keys, visitor: Visitor) -> None:
    visitor.open("/")
    visitor.log_in(keys.make("reader")["key"])
    expect(visitor.page.locator("h1")).to_have_text("Overview")
    [cookie] = visitor.cookies()
    visitor.press("Log out")
    assert visitor.page.locator("h1").inner_text() == "Log in"
    old = {cookie["name"]: cookie["value"]}
    reply = requests.get(f"{visitor.url}/ui/runs", cookies=old, allow_redirects=False, timeout=10)
    assert reply.status_code == 303


def test_another_integrator_sees_nothing_of_these_runs(keys: Keys, ids: dict[str, str], visitor: Visitor) -> None:
    visitor.expect_errors("status of 404")
    visitor.open("/ui/runs")
    visitor.log_in(keys.make("operator", "zenith")["key"])
    expect(visitor.page.locator("#main")).to_contain_text("No run matches")
    assert visitor.open(f"/ui/runs/{ids['failed']}") == 404
    for path in ("/", "/ui/workers", "/ui/dead-letters"):
        visitor.open(path)
        assert not [each for each in ids.values() if each in visitor.page.content()], path
