"""Starts a stack, submits runs of every kind, and lets schemathesis send cases to it until there were enough."""

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
from tests.acceptance.client import AGENTS, INCOME, ApiClient
from tests.stack import Stack
from tests.waiting import wait_until

HOOKS: Final = Path(__file__).with_name("hooks.py")
ROUND_WITHIN_S: Final = 1_800
# Which parameter gets its values from which dictionary of existing names.
PARAMETERS_OF_ALL_OPERATIONS: Final = {
    "path.execution_id": "executions",
    "path.letter_id": "letters",
    "path.step": "steps",
    "header.Prefer": "preferences",
}
PARAMETERS_OF_SOME_OPERATIONS: Final = {
    'include-path-regex = "^/consumers"': {"path.name": "consumers"},
    'include-path = "/executions/changes"': {"query.since": "cursors"},
    'include-path-regex = "^/agent"': {"path.name": "agents"},
    'include-path = "/baskets/{name}"\ninclude-method = "GET"': {"path.name": "baskets"},
    'include-path = "/baskets/{name}"\ninclude-method = "DELETE"': {"path.name": "deletable"},
}
_GENERATED: Final = re.compile(r"^\s*(\d+) generated", re.MULTILINE)


@dataclass(slots=True)
class FuzzResult:
    """The number of cases, and the report of schemathesis on those that failed, with a curl command for each."""

    cases: int = 0
    failures: list[str] = field(default_factory=list)


def run_cases(root: Path, *, cases: int, seed: int, examples: int) -> FuzzResult:
    """Try at least ``cases`` cases, ``examples`` random ones per operation and round; one seed gives the same cases."""
    result = FuzzResult()
    with (
        GroupReaper() as group_reaper,
        closing(Stack(root, group_reaper, BUCKET_AGENTS_DIR=str(AGENTS), BUCKET_LOG_LEVEL="WARNING")) as stack,
    ):
        stack.start_all()
        caller = ApiClient(stack)
        config = root / "schemathesis.toml"
        config.write_text(_config(_create_stored_data(caller)))
        rounds = 0
        while result.cases < cases and not result.failures:
            # The phases without randomness are run once.
            phases = "fuzzing,stateful" if rounds else "examples,coverage,fuzzing,stateful"
            _round(result, stack.url, config, phases, seed=seed + rounds, examples=examples)
            rounds += 1
            sys.stdout.write(f"{result.cases} cases\n")
            sys.stdout.flush()
        if not result.failures:
            _check_still_works(caller, result)
    return result


def _create_stored_data(caller: ApiClient) -> Mapping[str, Sequence[str]]:
    """Make completed, failed, cancelled, running and waiting runs; return the names of all that is stored."""
    completed = [caller.submit_basket(name, input_data=INCOME) for name in ("working_test", "chained_test")]
    config = {"name": "nightly", "steps": [{"agent": "raiser", "retry": "none"}]}
    input_data = {"kind": "TransientError"}
    failed = [
        caller.post("/run-basket", {"config": config, "input_data": input_data}).json()["execution_id"]
        for _ in range(3)
    ]
    for execution_id in (*completed, *failed):
        caller.wait_done(execution_id)
    scheduled = [caller.submit_basket("working_test", run_after_s=seconds) for seconds in (3_600, 7_200)]
    caller.post(f"/executions/{scheduled[0]}/cancel", {})
    running = caller.submit_agent("sleeper", seconds=60)
    for number in range(50):
        body = {"name": f"to delete {number}", "agents": ["cashflow_analyzer"]}
        assert caller.post("/create-basket", body).status_code == 201
    consumers = [f"consumer-{number}" for number in range(20)]
    for name in consumers:
        assert caller.request("PUT", f"/consumers/{name}").status_code == 201
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
    """Return schemathesis' settings, by which most names in the cases are names of things that exist."""
    words = sorted({word for name in ("baskets", "agents", "executions", "cursors") for word in stored[name]})
    dictionaries = {**stored, "words": words}
    lines = [
        f"hooks = {json.dumps(str(HOOKS))}",
        'suppress-health-check = ["all"]',
        "[output.sanitization]\nenabled = false",  # the cases contain no secrets, and a curl command must be complete
        "[output.truncation]\nenabled = false",
        '[generation]\ndatabase = "none"\nallow-x00 = true',
        '[generation.dictionaries]\nstring = {dictionary = "words", probability = 0.15}',
        *(f"[dictionaries.{name}]\nvalues = {json.dumps(values)}" for name, values in dictionaries.items()),
        "[parameters]",
        *(_dictionary_parameter(parameter, name) for parameter, name in PARAMETERS_OF_ALL_OPERATIONS.items()),
    ]
    for selector, bound in PARAMETERS_OF_SOME_OPERATIONS.items():
        lines += [f"[[operations]]\n{selector}\n[operations.parameters]"]
        lines += [_dictionary_parameter(parameter, name) for parameter, name in bound.items()]
    return "\n".join(lines) + "\n"


def _dictionary_parameter(parameter: str, dictionary: str) -> str:
    return f'"{parameter}" = {{dictionary = "{dictionary}", probability = 0.6}}'


def _round(result: FuzzResult, url: str, config: Path, phases: str, *, seed: int, examples: int) -> None:
    program = (sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(config))
    options: dict[str, Any] = {
        "--phases": phases, "--seed": seed, "--max-examples": examples, "--checks": "all", "--max-failures": 20,
    }  # fmt: skip
    arguments = [str(part) for pair in options.items() for part in pair]
    process = subprocess.run(
        [*program, "run", f"{url}/openapi.json", "--continue-on-failure", *arguments],
        capture_output=True, text=True, check=False, timeout=ROUND_WITHIN_S, cwd=config.parent,
    )  # fmt: skip
    generated = _GENERATED.search(process.stdout)
    result.cases += int(generated[1]) if generated else 0
    if process.returncode or not generated:
        result.failures.append(f"seed {seed}:\n{process.stdout}\n{process.stderr}")


def _check_still_works(caller: ApiClient, result: FuzzResult) -> None:
    """Check that after all cases the stack is healthy and a run completes."""
    wait_until(lambda: caller.get("/health").json()["status"] == "healthy", 30, "all services are connected")
    body = {"config": {"agents": ["cashflow_analyzer", "goal_recommender"]}, "input_data": INCOME}
    last = caller.wait_done(caller.post("/run-basket", body).json()["execution_id"])
    if last["status"] != "completed":
        result.failures.append(f"after it a run ends {last['status']}: {last['error']}")
