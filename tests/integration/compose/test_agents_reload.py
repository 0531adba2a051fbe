"""``bucketd up`` takes changed agents while runs are in flight, and loses nothing that it has accepted."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import requests

from compose.embedded.bucket_process_plans import fetch_json
from compose.own_agents import agents_watch
from compose.own_agents.agent_template import create_agent
from compose.own_agents.agents_watch import AgentsWatch
from tests.bucketd_up import bucketd_up
from tests.waiting import wait_until

SOURCE = """
import time

VERSION = %d

def run(given, ctx):
    time.sleep(given.get("seconds", 0.05) if VERSION == 1 else 0.05)
    return {"greeting": f"from version {VERSION}"}
"""


class Caller(threading.Thread):
    """Submits runs one after the other until it is told to stop; a refusal is no accepted run, and is counted."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.accepted, self.refused = url, list[str](), 0
        self.ends = threading.Event()

    def run(self) -> None:
        while not self.ends.wait(0.03):
            try:
                reply = requests.post(f"{self.url}/run-agent", json=greet(), timeout=10)
            except requests.ConnectionError:
                self.refused += 1
                continue
            if reply.status_code == 202:
                self.accepted.append(reply.json()["execution_id"])


def greet(**given: object) -> dict[str, object]:
    return {"agent_name": "greeter", "input_data": {"name": "Ada", **given}}


def test_changed_agents_are_taken_over_while_runs_are_in_flight(tmp_path: Path) -> None:
    agents = tmp_path / "agents"
    create_agent("greeter", agents)
    module = agents / "greeter" / "agent.py"
    module.write_text(SOURCE % 1)
    with bucketd_up(tmp_path, BUCKET_AGENTS_DIR=str(agents)) as (_, url):
        said = tmp_path / "said"
        caller = Caller(url)
        caller.start()
        wait_until(lambda: len(caller.accepted) > 3)
        long_run = requests.post(f"{url}/run-agent", json=greet(seconds=25), timeout=10).json()["execution_id"]
        create_agent("second", agents)
        module.write_text(SOURCE % 2)
        wait_until(lambda: "greeter, second changed, reloaded" in said.read_text(), 40, said.read_text())
        before = len(caller.accepted)
        wait_until(lambda: len(caller.accepted) > before + 3)
        caller.ends.set()
        caller.join()
        assert "second" in {agent["name"] for agent in requests.get(f"{url}/agents", timeout=5).json()}
        runs = [*caller.accepted, long_run]
        wait_until(lambda: all(fetch_json(f"{url}/execution-logs/{run}")["done"] for run in runs), 30)
        polls = [fetch_json(f"{url}/execution-logs/{run}") for run in runs]
        assert {poll["status"] for poll in polls} == {"completed"}
        greetings = [poll["result"]["greeting"] for poll in polls]
        assert greetings[0] == "from version 1"
        assert greetings[-2] == greetings[-1] == "from version 2", "the long step was handed back to the new worker"
        assert caller.refused == 0

        spec = agents / "greeter" / "agent_spec.json"
        spec.write_text(json.dumps(json.loads(spec.read_text()) | {"tiemout_s": 3}))
        words = "the agents that run stay as they were"
        wait_until(lambda: words in said.read_text(), 20, said.read_text())
        assert "did you mean timeout_s" in said.read_text()
        run = requests.post(f"{url}/run-agent", json=greet(), headers={"Prefer": "wait=10"}, timeout=20).json()
        assert (run["status"], run["result"]["greeting"]) == ("completed", "from version 2")


@pytest.mark.parametrize(
    "name", ["__pycache__/agent.pyc", ".hidden", "agent.py~", "#agent.py#", ".agent.py.swp", "4913"]
)
def test_what_editors_and_python_leave_is_no_change(tmp_path: Path, name: str) -> None:
    (tmp_path / "one").mkdir()
    now = 0.0
    watch = AgentsWatch(tmp_path, lambda: now)

    def changes() -> list[str]:
        nonlocal now
        now += agents_watch.LOOK_EVERY_S
        return watch.take_changes()

    file = tmp_path / "one" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("x")
    assert [changes(), changes()] == [[], []]
    (tmp_path / "one" / "agent.py").write_text("x")
    assert [changes(), changes(), changes()] == [[], ["one"], []], "taken once it is still"
    (tmp_path / "one" / "agent.py").unlink()
    assert [changes(), changes(), changes()] == [[], ["one"], []]
