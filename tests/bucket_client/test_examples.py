"""The examples of the client, each as a real process against a real stack; the long ones are killed on the way."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bucket_client.integration_check import Scenario, ScenarioTimes, check_integration, load_definition
from tests.stack import Stack
from tests.waiting import wait_until

EXAMPLES = Path(__file__).parents[2] / "client" / "examples"
TEMPLATE = EXAMPLES.parent / "template"


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack()


def start(stack: Stack, folder: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    with (folder / "stdout").open("a") as output:
        return subprocess.Popen(
            [sys.executable, str(EXAMPLES / name), *arguments],
            cwd=folder,
            env=os.environ | {"BUCKET_URL": stack.url},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def output_of(stack: Stack, folder: Path, name: str, *arguments: str) -> str:
    """Run an example to its end and return what it printed."""
    (folder / "stdout").unlink(missing_ok=True)
    assert start(stack, folder, name, *arguments).wait(60) == 0, (folder / "stdout").read_text()
    return (folder / "stdout").read_text()


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text()))
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested - {"integration.py"}


def test_request_and_response(stack: Stack, tmp_path: Path) -> None:
    printed = output_of(stack, tmp_path, "request_response.py")
    assert re.fullmatch(r"\d{10}_[0-9a-f]{16} \{'total': 550, 'positive': 1000, 'negative': -450\}\n", printed)


def test_publish_and_subscribe(stack: Stack, tmp_path: Path) -> None:
    printed = output_of(stack, tmp_path, "publish_subscribe.py", "t1")
    assert printed == "billing-t1 [0, 10, 20, 30, 40]\naudit-t1 [0, 10, 20, 30, 40]\n"


def test_orchestration_finds_its_run_again_after_its_own_restart(stack: Stack, tmp_path: Path) -> None:
    process = start(stack, tmp_path, "orchestration.py", "order-1")
    wait_until(lambda: "running" in (tmp_path / "stdout").read_text(), 20, "it follows its run")
    process.kill()
    process.wait()
    printed = output_of(stack, tmp_path, "orchestration.py", "order-1")
    assert re.search(r"^order-1 \d{10}_[0-9a-f]{16} completed$", printed, re.MULTILINE)
    assert stack.mongo()["executions"].count_documents({"basket_name": "simulate"}) == 1


def test_synchronisation_by_the_feed(stack: Stack, tmp_path: Path) -> None:
    output_of(stack, tmp_path, "synchronise.py", "runs.db", "sync-1")  # creates the consumer
    for _ in range(2):
        output_of(stack, tmp_path, "request_response.py")
    assert output_of(stack, tmp_path, "synchronise.py", "runs.db", "sync-1") == "completed 2\n"
    output_of(stack, tmp_path, "request_response.py")
    assert output_of(stack, tmp_path, "synchronise.py", "runs.db", "sync-1") == "completed 3\n"


def test_aggregation_over_parallel_baskets(stack: Stack, tmp_path: Path) -> None:
    printed = output_of(stack, tmp_path, "aggregation.py")
    assert printed == "current 550\nsavings 400\ncard -110\nsum 840\n"


def test_the_nightly_job_is_killed_twice_and_leaves_each_line_once(stack: Stack, tmp_path: Path) -> None:
    lines = [f"account-{number // 2:03},{number} -1" for number in range(300)]  # two lines for each account
    (tmp_path / "accounts.csv").write_text("\n".join(["account,amounts", *lines]) + "\n")
    report = tmp_path / "report.csv"
    before = stack.mongo()["executions"].count_documents({})

    def lines_written() -> int:
        return report.read_text().count("\n") if report.exists() else 0

    for enough in (1, 60):
        process = start(stack, tmp_path, "nightly_job.py", "accounts.csv", "report.csv")
        wait_until(lambda enough=enough: lines_written() >= enough, 30, f"{enough} lines are written")
        process.kill()
        process.wait()
    output_of(stack, tmp_path, "nightly_job.py", "accounts.csv", "report.csv")
    with report.open(newline="") as written:
        rows = list(csv.DictReader(written))
    assert {int(row["line"]): (row["account"], float(row["total"])) for row in rows} == {
        number + 2: (f"account-{number // 2:03}", number - 1) for number in range(300)
    }
    assert len(rows) == 300
    assert stack.mongo()["executions"].count_documents({}) - before == 300
    report.unlink()
    assert start(stack, tmp_path, "nightly_job.py", "accounts.csv", "report.csv").wait(60) == 1
    assert "is gone: remove report.csv.state" in (tmp_path / "stdout").read_text()


def test_the_template_runs_and_passes_the_check_that_it_describes(stack: Stack, tmp_path: Path) -> None:
    copy = tmp_path / "integration"
    shutil.copytree(TEMPLATE, copy)
    definition = copy / "integration.toml"
    definition.write_text(definition.read_text().replace('"python"', f'"{sys.executable}"'))
    report = check_integration(
        load_definition(definition),
        stack.url,
        scenarios=set(Scenario) - {Scenario.HANG},  # it would take as long as the client's own timeout
        times=ScenarioTimes(restart_s=1.0, retry_after_s=1),
        one_at_a_time=True,
    )
    assert report.passed, report.as_text()
    assert {check.name for check in report.checks if check.passed} >= {"hints are obeyed", "survives a restart"}
    assert {path.name for path in copy.iterdir()} - {path.name for path in TEMPLATE.iterdir()} == {"results.jsonl"}
    lines = [json.loads(line) for line in (copy / "results.jsonl").read_text().splitlines()]
    assert {line["record"]: line["total"] for line in lines} == {0: 600, 1: 250}


def test_the_command_prints_its_report_and_refuses_a_misspelt_file(stack: Stack, tmp_path: Path) -> None:
    def check(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "integration.toml").write_text(text)
        command = [sys.executable, "-m", "bucket_client.cli", "check-integration", "integration.toml", "--json"]
        environment = os.environ | {"BUCKET_URL": stack.url}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    (tmp_path / "mapping.md").write_text("nothing")
    text = f"""
name = "ends at once"
basket = "working_test"
mapping = "mapping.md"
command = ["{sys.executable}", "-c", "raise SystemExit(7)"]
[[samples]]
input = {{ transactions = [] }}
"""
    done = check(text)
    assert done.returncode == 1, done.stderr
    outcomes = {each["name"]: each["outcome"] for each in json.loads(done.stdout)["checks"]}
    assert outcomes["command ends well"] == outcomes["mapping documented"] == "failed"
    assert outcomes["samples"] == "passed"
    refused = check(text.replace("basket =", "baskte ="))
    assert refused.returncode == 2
    assert "basket" in refused.stderr
