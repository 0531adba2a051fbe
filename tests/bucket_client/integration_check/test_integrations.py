"""Real integrations against a real stack: good ones pass, and each fault is caught by exactly the check it deserves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bucket_client.integration_check import (
    CheckResult,
    DefinitionError,
    IntegrationReport,
    Outcome,
    Scenario,
    ScenarioTimes,
    check_integration,
    load_definition,
)
from tests.stack import Stack

AGENTS = Path(__file__).parents[2] / "agents"
TIMES = ScenarioTimes(restart_s=2.0, hang_s=3.0, retry_after_s=1)
"""Short, but longer than the pauses and the timeouts of the programs below."""

TOML = """
name = "nightly-report"
basket = "{basket}"
mapping = "mapping.md"
command = {command}
timeout_s = 30

[[samples]]
input = {{ script = ["completed"] }}
"""
MAPPING = "Input: `script` is what is played. Result: `simulated` is always true; `attempts` counts the attempts."

WITH_THE_SDK = """
from bucket_client import Bucket

with Bucket(timeout=1.0) as bucket:
    run = bucket.run("simulate", {"script": ["running:0.3", "completed"]})
    [done] = bucket.wait_many([run.execution_id], timeout=30)
    print(done.raise_for_status().result)
"""

WITH_REQUESTS = """
import os
import sys
import time
import uuid

import requests

flaws = set(sys.argv[1:])
url = os.environ["BUCKET_URL"]


def send(method, path, **options):
    for attempt in range(40):
        try:
            timeout = None if "no timeout" in flaws else 1.0
            response = requests.request(method, url + path, timeout=timeout, **options)
        except requests.RequestException:
            if "dies when refused" in flaws and attempt > 0:
                raise
            time.sleep(0.1)
        else:
            if response.status_code != 503:
                response.raise_for_status()
                return response
            if "dies when busy" in flaws:
                response.raise_for_status()
            time.sleep(0 if "ignores Retry-After" in flaws else int(response.headers["Retry-After"]))
        if "new key" in flaws and "headers" in options:
            options["headers"] = {"Idempotency-Key": str(uuid.uuid4())}
    raise SystemExit("no reply")


basket = "working_test" if "other basket" in flaws else "simulate"
body = {"basket_name": basket, "input_data": {"script": ["running:0.3", "completed"]}}
if "other basket" in flaws:
    body["input_data"] = {"transactions": []}
headers = {} if "no key" in flaws else {"Idempotency-Key": str(uuid.uuid4())}
state = send("POST", "/run-basket", json=body, headers=headers).json()
while not state["done"]:
    time.sleep(0.01 if "hurries" in flaws else state["poll_after_ms"] / 1000)
    state = send("GET", "/executions/" + state["execution_id"]).json()
print(state["result"])
if "exit code 1" in flaws:
    print("the report is empty")
    raise SystemExit(1)
"""

WITH_A_LOCK = (
    """
import os
import pathlib

os.close(os.open("lock", os.O_CREAT | os.O_EXCL))
"""
    + WITH_REQUESTS
    + """
if "consumer" in flaws:
    requests.get(url + "/consumers/nobody/changes", timeout=5)
if "keeps the lock" not in flaws:
    pathlib.Path("lock").unlink()
"""
)

IDLE = "print('this program does not know BUCKET_URL')"

Check = Callable[..., IntegrationReport]


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


def written(folder: Path, program: str, flaws: Sequence[str] = (), mapping: str = MAPPING, toml: str = TOML) -> Path:
    """Write an integration into ``folder`` and return the path of its TOML file."""
    (folder / "integration.py").write_text(program, encoding="utf-8")
    (folder / "mapping.md").write_text(mapping, encoding="utf-8")
    path = folder / "integration.toml"
    command = [sys.executable, "integration.py", *flaws]
    path.write_text(toml.format(basket="simulate", command=command), encoding="utf-8")
    return path


def failed(report: IntegrationReport) -> list[str]:
    return [check.name for check in report.checks if check.outcome is Outcome.FAILED]


def skipped(report: IntegrationReport) -> list[str]:
    return [check.name for check in report.checks if check.outcome is Outcome.SKIPPED]


def detail_of(report: IntegrationReport, name: str) -> str:
    [check] = [check for check in report.checks if check.name == name]
    return check.detail


@pytest.mark.parametrize("program", [WITH_THE_SDK, WITH_REQUESTS], ids=["sdk", "requests"])
def test_a_good_integration_passes_every_check(stack: Stack, tmp_path: Path, program: str) -> None:
    seen: list[CheckResult] = []
    report = check_integration(
        load_definition(written(tmp_path, program)), stack.url, on_check=seen.append, times=TIMES
    )
    assert failed(report) == [], report.as_text()
    assert skipped(report) == [], report.as_text()
    assert tuple(seen) == report.checks
    assert report.passed


@pytest.mark.parametrize(("options", "one_at_a_time"), [([], True), (["consumer"], False)], ids=["asked", "consumer"])
def test_runs_that_would_disturb_each_other_come_one_after_the_other(
    stack: Stack, tmp_path: Path, options: list[str], *, one_at_a_time: bool
) -> None:
    definition = load_definition(written(tmp_path, WITH_A_LOCK, options))
    scenarios = [Scenario.LOST_REPLY, Scenario.RESTART]
    times = ScenarioTimes(restart_s=0.2)
    report = check_integration(definition, stack.url, scenarios=scenarios, times=times, one_at_a_time=one_at_a_time)
    assert failed(report) == [], report.as_text()


def test_runs_that_disturb_each_other_fail_and_the_report_says_how_to_check_them(stack: Stack, tmp_path: Path) -> None:
    definition = load_definition(written(tmp_path, WITH_A_LOCK, ["keeps the lock"]))
    report = check_integration(definition, stack.url, scenarios=[Scenario.LOST_REPLY])
    assert failed(report) == ["survives a lost reply"]
    assert "one at a time" in detail_of(report, "survives a lost reply")
    assert "FileExistsError" in detail_of(report, "survives a lost reply")


@pytest.mark.parametrize(
    ("flaw", "scenarios", "check", "detail"),
    [
        ("no key", [Scenario.LOST_REPLY], "submits are idempotent", "2 runs of 1 distinct submits"),
        ("new key", [Scenario.LOST_REPLY], "submits are idempotent", "another Idempotency-Key"),
        ("hurries", [], "hints are obeyed", "GET /executions/"),
        ("ignores Retry-After", [Scenario.BUSY], "hints are obeyed", "after the 503 that said 1000 ms"),
        ("dies when busy", [Scenario.BUSY], "survives a busy server", "HTTPError: 503"),
        ("dies when refused", list(Scenario), "survives a restart", "Connection refused"),
        ("no timeout", [Scenario.HANG], "has timeouts", "still open after 3 s"),
        ("exit code 1", list(Scenario), "command ends well", "the report is empty"),
        ("other basket", [], "submits the basket", "it submitted working_test"),
    ],
)
def test_a_flaw_is_caught_by_exactly_the_check_that_it_deserves(
    stack: Stack, tmp_path: Path, *, flaw: str, scenarios: list[Scenario], check: str, detail: str
) -> None:
    definition = load_definition(written(tmp_path, WITH_REQUESTS, [flaw]))
    report = check_integration(definition, stack.url, scenarios=scenarios, times=TIMES)
    assert failed(report) == [check], report.as_text()
    assert detail in detail_of(report, check)
    assert not report.passed


def test_a_field_that_the_mapping_does_not_describe_is_named(stack: Stack, tmp_path: Path) -> None:
    mapping = "The script is played and simulated. Scripts and number-of-attempts mean other things."
    definition = load_definition(written(tmp_path, WITH_REQUESTS, mapping=mapping))
    report = check_integration(definition, stack.url, scenarios=[])
    assert failed(report) == ["mapping documented"]
    assert detail_of(report, "mapping documented") == "mapping.md does not name 'attempts' of the result: describe it"


def test_a_sample_that_is_refused_or_fails_is_named_with_its_place(stack: Stack, tmp_path: Path) -> None:
    more = '[[samples]]\ninput = {{ script = 7 }}\n[[samples]]\ninput = {{ script = ["failed:no_luck"] }}'
    definition = load_definition(written(tmp_path, WITH_REQUESTS, toml=TOML + more))
    report = check_integration(definition, stack.url, scenarios=[])
    assert failed(report) == ["samples"]
    assert "2 samples brought no result" in detail_of(report, "mapping documented")
    detail = detail_of(report, "samples")
    assert "samples[0]" not in detail
    assert "samples[1] (at /input_data/script)" in detail
    assert "no_luck" in detail


def test_a_command_that_sends_nothing_is_told_of_bucket_url_and_proves_nothing(stack: Stack, tmp_path: Path) -> None:
    report = check_integration(load_definition(written(tmp_path, IDLE)), stack.url, times=TIMES)
    assert failed(report) == ["submits the basket"]
    assert len(skipped(report)) == 6  # keys, hints and the four faults that met no request
    assert "BUCKET_URL" in detail_of(report, "survives a restart")


def test_without_its_basket_or_its_program_nothing_is_run(stack: Stack, tmp_path: Path) -> None:
    toml = TOML.replace("{basket}", "simulatte").replace("{command}", '["no-such-program"]')
    report = check_integration(load_definition(written(tmp_path, IDLE, toml=toml)), stack.url)
    assert failed(report) == ["definition"]
    assert len(skipped(report)) == len(report.checks) - 1
    assert "no program 'no-such-program'" in detail_of(report, "definition")
    assert "simulatte" in detail_of(report, "definition")


def test_a_misspelt_key_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="did you mean 'basket'"):
        load_definition(written(tmp_path, IDLE, toml=TOML.replace("basket =", "baskets =")))


def test_the_api_key_is_not_in_the_report_even_if_the_command_prints_it(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKET_API_KEY", "bk_of_the_command")
    program = "import os\nraise SystemExit('bk_of_the_check ' + os.environ['BUCKET_API_KEY'])"
    definition = load_definition(written(tmp_path, program))
    report = check_integration(definition, stack.url, api_key="bk_of_the_check", scenarios=[])
    assert "*** ***" in detail_of(report, "command ends well")
    assert "bk_of" not in report.as_text() + str(report.as_json())


def test_a_hook_that_fails_ends_nothing(stack: Stack, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_check: CheckResult) -> None:
        raise RuntimeError("no terminal")

    report = check_integration(load_definition(written(tmp_path, IDLE)), stack.url, on_check=fail, scenarios=[])
    assert len(report.checks) == 11
    assert "no terminal" in caplog.text
