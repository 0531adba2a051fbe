"""Starts a stack, gives it runs of every kind, and lets schemathesis loose on it until enough cases were tried."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from compose.embedded.group_reaper import GroupReaper
from tests.acceptance.client import AGENTS, INCOME, Caller
from tests.stack import Stack
from tests.waiting import wait_until

HOOKS: Final = Path(__file__).with_name("hooks.py")
ROUND_WITHIN_S: Final = 1_800
# Which parameter takes its values from which of the names that are there.
EVERYWHERE: Final = {
    "path.execution_id": "executions",
    "path.letter_id": "letters",
    "path.step": "steps",
    "header.Prefer": "preferences",
}
SOMEWHERE: Final = {
    'include-path-regex = "^/consumers"': {"path.name": "consumers"},
    'include-path = "/executions/changes"': {"query.since": "cursors"},
    'include-path-regex = "^/agent"': {"path.name": "agents"},
    'include-path = "/baskets/{name}"\ninclude-method = "GET"': {"path.name": "baskets"},
    'include-path = "/baskets/{name}"\ninclude-method = "DELETE"': {"path.name": "deletable"},
}
_GENERATED: Final = re.compile(r"^\s*(\d+) generated", re.MULTILINE)


@dataclass(slots=True)
class Played:
    """How many cases were tried, and what schemathesis said of those that failed, a curl for each."""

    cases: int = 0
    failures: list[str] = field(default_factory=list)


def play(root: Path, *, cases: int, seed: int, examples: int) -> Played:
    """Try at least ``cases`` cases, with ``examples`` random ones an operation a round; one seed, the same cases."""
    played = Played()
    with (
        GroupReaper() as guard,
        closing(Stack(root, guard, BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_LOG_LEVEL="WARNING")) as stack,
    ):
        stack.start_all()
        caller = Caller(stack)
        config = root / "schemathesis.toml"
        config.write_text(_config(_stored(caller)))
        rounds = 0
        while played.cases < cases and not played.failures:
            # The phases that chance has no part in are played once.
            phases = "fuzzing,stateful" if rounds else "examples,coverage,fuzzing,stateful"
            _round(played, stack.url, config, phases, seed=seed + rounds, examples=examples)
            rounds += 1
            sys.stdout.write(f"{played.cases} cases\n")
            sys.stdout.flush()
        if not played.failures:
            _check_still_works(caller, played)
    return played


def _stored(caller: Caller) -> Mapping[str, Sequence[str]]:
    """Make runs that have completed, failed, been cancelled, that run and that wait; answer what names them."""
    completed = [caller.run(name, input_data=INCOME) for name in ("working_test", "chained_test")]
    config = {"name": "nightly", "steps": [{"agent": "raiser", "retry": "none"}]}
    given = {"kind": "TransientError"}
    failed = [
        caller.post("/run-basket", {"config": config, "input_data": given}).json()["execution_id"] for _ in range(3)
    ]
    for execution_id in (*completed, *failed):
        caller.finished(execution_id)
    scheduled = [caller.run("working_test", run_after_s=seconds) for seconds in (3_600, 7_200)]
    caller.post(f"/executions/{scheduled[0]}/cancel", {})
    running = caller.run_agent("sleeper", seconds=60)
    for number in range(50):
        body = {"name": f"to delete {number}", "agents": ["cashflow_analyzer"]}
        assert caller.post("/create-basket", body).status_code == 201
    consumers = [f"consumer-{number}" for number in range(20)]
    for name in consumers:
        assert caller.ask("PUT", f"/consumers/{name}").status_code == 201
    return {
        "executions": [*completed, *failed, *scheduled, running],
        "letters": failed,
        "baskets": ["working_test", "chained_test", "goal_test"],
        "deletable": [f"to delete {number}" for number in range(50)],
        "agents": ["cashflow_analyzer", "goal_recommender", "echo"],
        "consumers": consumers,
        "cursors": [caller.get("/executions/changes?limit=2").json()["next_since"], "now"],
        "preferences": ["wait=0", "respond-async", "wait=soon", 'handling=lenient; a="b", wait=0'],
        "steps": ["cashflow_analyzer", "goal_recommender", "raiser"],
    }


def _config(stored: Mapping[str, Sequence[str]]) -> str:
    """Write schemathesis' settings: most of what names something names something that is there."""
    words = sorted({word for name in ("baskets", "agents", "executions", "cursors") for word in stored[name]})
    dictionaries = {**stored, "words": words}
    lines = [
        f"hooks = {json.dumps(str(HOOKS))}",
        'suppress-health-check = ["all"]',
        "[output.sanitization]\nenabled = false",  # what is failed with is no secret, and a curl must be whole
        "[output.truncation]\nenabled = false",
        '[generation]\ndatabase = "none"\nallow-x00 = true',
        '[generation.dictionaries]\nstring = {dictionary = "words", probability = 0.15}',
        *(f"[dictionaries.{name}]\nvalues = {json.dumps(values)}" for name, values in dictionaries.items()),
        "[parameters]",
        *(_often(parameter, name) for parameter, name in EVERYWHERE.items()),
    ]
    for selector, bound in SOMEWHERE.items():
        lines += [f"[[operations]]\n{selector}\n[operations.parameters]"]
        lines += [_often(parameter, name) for parameter, name in bound.items()]
    return "\n".join(lines) + "\n"


def _often(parameter: str, dictionary: str) -> str:
    return f'"{parameter}" = {{dictionary = "{dictionary}", probability = 0.6}}'


def _round(played: Played, url: str, config: Path, phases: str, *, seed: int, examples: int) -> None:
    program = (sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(config))
    asked: dict[str, Any] = {
        "--phases": phases, "--seed": seed, "--max-examples": examples, "--checks": "all", "--max-failures": 20,
    }  # fmt: skip
    told = [str(part) for pair in asked.items() for part in pair]
    done = subprocess.run(
        [*program, "run", f"{url}/openapi.json", "--continue-on-failure", *told],
        capture_output=True, text=True, check=False, timeout=ROUND_WITHIN_S, cwd=config.parent,
    )  # fmt: skip
    generated = _GENERATED.search(done.stdout)
    played.cases += int(generated[1]) if generated else 0
    if done.returncode or not generated:
        played.failures.append(f"seed {seed}:\n{done.stdout}\n{done.stderr}")


def _check_still_works(caller: Caller, played: Played) -> None:
    """See that after all of it nothing of the stack is down and a run completes."""
    wait_until(lambda: caller.get("/health").json()["status"] == "healthy", 30, "all services are connected")
    body = {"config": {"agents": ["cashflow_analyzer", "goal_recommender"]}, "input_data": INCOME}
    last = caller.finished(caller.post("/run-basket", body).json()["execution_id"])
    if last["status"] != "completed":
        played.failures.append(f"after it a run ends {last['status']}: {last['error']}")
