"""Each command of ``bucket`` against a real stack, as a program calls it: through pipes."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bucket_client import Bucket
from bucket_client.cli import commands
from tests.stack import Stack
from tests.waiting import wait_until

AGENTS = Path(__file__).parents[2] / "agents"
SLOW = '{"script": ["running:30", "completed"]}'
BucketCommand = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture
def bucket(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[BucketCommand]:
    """Yield a function that runs a command line and returns its exit code and what it printed."""
    monkeypatch.setenv("BUCKET_URL", stack.url)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = commands.run(arguments)
        printed = capsys.readouterr()
        assert "\x1b" not in printed.out + printed.err
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    yield run
    signal.signal(signal.SIGTERM, before)


def count_of(stack: Stack, collection: str = "executions") -> int:
    return stack.mongo()[collection].count_documents({})


def test_a_run_prints_its_id_and_the_line_to_come_back(bucket: BucketCommand) -> None:
    code, out, err = bucket("run", "working_test", "-i", '{"transactions": []}')
    assert (code, err) == (0, f"queued; to wait for it: bucket watch {out.strip()}\n")
    code, out, err = bucket(*err.strip().partition("bucket ")[2].split())
    assert (code, json.loads(out)) == (0, {"analysis": {"total": 0, "positive": 0, "negative": 0}})


def test_a_wait_prints_the_result_alone_on_stdout(bucket: BucketCommand, tmp_path: Path) -> None:
    path = tmp_path / "input.json"
    path.write_text('{"transactions": []}')
    code, out, err = bucket("run", "working_test", "--wait", "-i", str(path))
    assert (code, json.loads(out)["analysis"]["total"]) == (0, 0)
    assert "completed in" in err
    code, out, err = bucket("run", "working_test", "--wait", "-i", str(path), "-q")
    assert (code, json.loads(out)["analysis"]["total"], err) == (0, 0, "")


def test_the_input_may_come_from_stdin(bucket: BucketCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"transactions": []}')))
    assert bucket("run", "working_test", "--wait", "-i", "-")[0] == 0


def test_what_is_said_with_a_submit_is_stored_with_the_run(bucket: BucketCommand) -> None:
    options = ["--tag", "a", "--tag", "b", "--metadata", '{"m": 1}', "--reference", "r-1", "--request-id", "req-cli"]
    options += ["--run-after", "1h", "--start-deadline", "2h", "--deadline", "3h", "--key", "cli-key"]
    code, out, _ = bucket("run", "working_test", "-i", '{"transactions": []}', "--json", *options)
    accepted = json.loads(out)
    assert (code, accepted["status"], accepted["request_id"]) == (0, "scheduled", "req-cli")
    shown = json.loads(bucket("show", "--json", accepted["execution_id"])[1])
    assert (shown["tags"], shown["metadata"], shown["reference"]) == (["a", "b"], {"m": 1}, "r-1")
    again = json.loads(bucket("run", "working_test", "-i", '{"transactions": []}', "--json", *options)[1])
    assert again["execution_id"] == accepted["execution_id"]
    for name, value in {
        "status": "scheduled",
        "basket": "working_test",
        "tag": "b",
        "reference": "r-1",
        "request-id": "req-cli",
        "key": "cli-key",
        "created-after": "1h",
        "created-before": "2100-01-01",
        "updated-since": "1h",
    }.items():
        assert accepted["execution_id"] in bucket("list", "-q", f"--{name}", value)[1].split(), name
    assert bucket("list", "-q", "--tag", "b", "--created-before", "1h")[1] == ""
    text = bucket("show", accepted["execution_id"])[1]
    assert "scheduled, in about" in text
    assert bucket("cancel", accepted["execution_id"], "--reason", "enough")[0] == 0
    assert "enough" in bucket("show", accepted["execution_id"])[1]


def test_a_failed_run_says_where_and_why_and_how_to_run_it_again(bucket: BucketCommand) -> None:
    script = '{"script": ["running:0.1", "failed:card_declined"]}'
    code, out, err = bucket("run", "simulate", "--wait", "-i", script)
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert lines[0].startswith("error: ")
    assert "failed in step simulate: card_declined: " in lines[0]
    assert any("info" in line and "simulate started" in line for line in lines[1:])
    failed_id = lines[0].split()[1]
    assert lines[-1].strip() == f"to run it again: bucket retry {failed_id}"
    code, out, _ = bucket("retry", failed_id, "--from", "start", "-q")
    assert code == 0
    assert bucket("list", "-q", "--retry-of", failed_id)[1] == out
    code, out, err = bucket("watch", failed_id, "--json")
    assert (code, json.loads(out)["status"], json.loads(err)["error_code"]) == (1, "failed", "card_declined")
    assert bucket("show", failed_id)[0] == 0


def test_a_warning_is_one_line_that_nothing_hides(bucket: BucketCommand) -> None:
    for option in ("-q", "--json", "--wait"):
        code, out, err = bucket("run", "working_test", option)
        assert code == 0
        assert err.splitlines()[0].startswith("warning: no input_data was sent")
        assert ".py" not in err
        assert "warning:" not in out


def test_a_wait_that_is_too_long_leaves_the_run_going(bucket: BucketCommand) -> None:
    code, out, err = bucket("run", "simulate", "--wait", "--timeout", "0.2", "-i", SLOW)
    assert (code, out) == (5, "")
    assert "to come back: bucket watch " in err
    execution_id = err.split()[-1]
    assert bucket("show", "-q", execution_id)[1].strip() in {"queued", "running"}
    code, out, _ = bucket("cancel", "--dry-run", execution_id)
    assert (code, out.splitlines()[0].endswith(f"/executions/{execution_id}/cancel")) == (0, True)
    assert bucket("show", "-q", execution_id)[1].strip() in {"queued", "running"}
    assert bucket("cancel", execution_id)[0] == 0
    code, _, err = bucket("watch", execution_id)
    assert (code, "cancelled" in err) == (1, True)


def test_several_runs_are_watched_at_once(bucket: BucketCommand) -> None:
    scripts = ['{"script": ["completed"]}', '{"script": ["failed:no_luck"]}']
    ids = [bucket("run", "simulate", "-q", "-i", script)[1].strip() for script in scripts]
    code, out, err = bucket("watch", *ids)
    assert (err.count("completed in"), err.count("(2 of 2)")) == (1, 1)
    assert (code, [line.split()[:2] for line in out.splitlines()[1:]]) == (
        1,
        [[ids[0], "completed"], [ids[1], "failed"]],
    )
    code, out, _ = bucket("watch", *ids, "--json")
    assert sorted(json.loads(line)["execution_id"] for line in out.splitlines()) == sorted(ids)
    assert bucket("watch", ids[0], ids[0])[0] == 0
    assert bucket("watch", *ids, "1763700000_89ce24ad1b2c3d4e")[0] == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "nope"], 4),
        (["show", "nope"], 4),
        (["show", "../health"], 4),
        (["logs", "nope"], 4),
        (["watch", "nope"], 4),
        (["cancel", "nope"], 4),
        (["retry", "nope"], 4),
        (["agents", "show", "nope"], 4),
        (["baskets", "show", "nope"], 4),
        (["baskets", "delete", "nope"], 4),
        (["run", "working_test", "-i", "{"], 2),
        (["run", "working_test", "--timeout", "1"], 2),
        (["list", "--status", "nope"], 2),
        (["--url", "ftp://x", "list"], 2),
        (["--url", "http://127.0.0.1:9", "health"], 3),
    ],
)
def test_a_refusal_has_its_exit_code_and_is_json_for_a_program(
    bucket: BucketCommand, arguments: list[str], code: int
) -> None:
    assert bucket(*arguments)[:2] == (code, "")
    found, out, err = bucket(*arguments, "--json")
    problem = json.loads(err)
    assert (found, out) == (code, "")
    assert problem["message"]
    assert problem.keys() >= {"error_code", "status", "request_id", "pointers"}


def test_a_fault_of_the_input_has_its_place(bucket: BucketCommand) -> None:
    code, _, err = bucket("run", "simulate", "-i", '{"script": ["x", "y"]}')
    assert (code, "/input_data/script/0" in err, "validation_failed" in err) == (4, True, True)
    pointers = json.loads(bucket("run", "simulate", "-i", '{"script": ["x"]}', "--json")[2])["pointers"]
    assert pointers == ["/input_data/script/0"]


def test_a_list_is_a_table_or_lines_of_json_or_ids(bucket: BucketCommand) -> None:
    for _ in range(3):
        bucket("run", "working_test", "-q", "--tag", "three", "-i", '{"transactions": []}')
    _, table, note = bucket("list", "--tag", "three", "--limit", "2")
    ids = [line.split()[0] for line in table.splitlines()[1:]]
    assert len(ids) == 2
    assert "--all" in note
    assert bucket("list", "--tag", "three", "--limit", "2", "-q")[1].split() == ids
    every = [json.loads(line) for line in bucket("list", "--tag", "three", "--all", "--json")[1].splitlines()]
    assert [run["execution_id"] for run in every][:2] == ids
    assert len(every) == 3
    oldest = bucket("list", "--tag", "three", "--order", "oldest", "-q")[1].split()
    assert oldest == [run["execution_id"] for run in every][::-1]
    assert bucket("list", "--tag", "none") == (0, "", "no runs\n")


def test_a_log_is_followed_to_its_end(bucket: BucketCommand) -> None:
    run_id = bucket("run", "simulate", "-q", "-i", '{"script": ["running:0.3@50", "completed"]}')[1].strip()
    code, out, _ = bucket("logs", "-f", run_id)
    assert code == 0
    assert "accepted basket simulate" in out.splitlines()[0]
    lines = [json.loads(line) for line in bucket("logs", run_id, "--json", "--after", "1")[1].splitlines()]
    assert [line["seq"] for line in lines] == list(range(2, len(out.splitlines()) + 1))


def test_agents_baskets_and_health_are_shown(bucket: BucketCommand) -> None:
    assert "echo" in bucket("agents", "-q")[1].split()
    assert "Returns its input." in bucket("agents", "--domain", "test")[1]
    assert "input_schema" in bucket("agents", "show", "echo")[1]
    assert json.loads(bucket("agents", "show", "echo", "--json")[1])["name"] == "echo"
    assert "chained_test" in bucket("baskets", "-q")[1].split()
    assert "cashflow_analyzer, goal_recommender" in bucket("baskets")[1]
    assert "chained_test" in bucket("baskets", "show", "chained_test")[1]
    wait_until(lambda: bucket("health")[0] == 0, what="all is well, the reconciler too")
    assert json.loads(bucket("--json", "health")[1])["status"] == "healthy"


def test_health_that_is_not_good_is_exit_code_1(bucket: BucketCommand, stack: Stack) -> None:
    stack.kill("redis")
    try:
        wait_until(lambda: bucket("health", "-q") == (1, "", ""), what="the health says that redis is away")
        # Each of the two processes of the API notices it by itself.
        wait_until(lambda: "Redis does not answer" in bucket("health")[1], what="the other process says so too")
    finally:
        stack.repair()


def test_a_basket_is_created_and_deleted(bucket: BucketCommand, stack: Stack, tmp_path: Path) -> None:
    before = count_of(stack, "baskets")
    code, out, _ = bucket("baskets", "create", "mine", "--agent", "echo", "--dry-run", "--json")
    body = {"name": "mine", "agents": ["echo"]}
    assert (code, json.loads(out)) == (0, {"method": "POST", "path": "/create-basket", "headers": {}, "body": body})
    assert count_of(stack, "baskets") == before
    assert bucket("baskets", "create", "mine", "--agent", "echo", "--description", "\x1b[31m[bold]x")[0] == 0
    assert r"\x1b[31m[bold]x" in bucket("baskets")[1]
    assert bucket("baskets", "create", "mine", "--agent", "counter")[0] == 4
    assert bucket("baskets", "delete", "mine", "--dry-run")[0] == 0
    assert bucket("baskets", "show", "mine")[0] == 0
    assert bucket("baskets", "delete", "mine")[0] == 0
    assert bucket("baskets", "show", "mine")[0] == 4
    path = tmp_path / "basket.json"
    path.write_text('{"steps": [{"agent": "echo"}], "nope": 1}')
    assert bucket("baskets", "create", "mine", "-f", str(path))[0] == 2
    assert bucket("baskets", "create", "mine", "-f", '{"steps": [{"agent": "echo"}]}')[0] == 0
    assert bucket("baskets", "delete", "mine", "--json")[1] == '{\n  "deleted": "mine"\n}\n'


def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(bucket: BucketCommand, stack: Stack) -> None:
    before = count_of(stack)
    code, out, err = bucket("run", "working_test", "-i", '{"transactions": []}', "--key", "k", "--dry-run")
    assert (code, out.splitlines()[:2]) == (0, [f"POST {stack.url}/run-basket", "Idempotency-Key: k"])
    body = json.loads(out.partition("k\n")[2])
    assert body == {"basket_name": "working_test", "input_data": {"transactions": []}}
    assert err == "dry run: nothing was sent\n"
    found = json.loads(bucket("retry", "1_a", "--from", "start", "--dry-run", "--json")[1])
    assert (found["path"], found["body"]) == ("/executions/1_a/retry", {"from": "start"})
    assert count_of(stack) == before


def test_the_connectors_are_checked(bucket: BucketCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BHIV_BUCKET_DIR", str(tmp_path / "bucket"))
    code, out, _ = bucket("connectors", "check")
    assert (code, "ok" in out) == (0, True)
    monkeypatch.setenv("BHIV_CORE_URL", "no address")
    code, out, _ = bucket("connectors", "check", "--json")
    assert (code, [check["passed"] for check in json.loads(out)]) == (1, [False])


def complete(url: str, *words: str) -> list[str]:
    environ = os.environ | {
        "BUCKET_URL": url,
        "_BUCKET_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["bucket", *words]),
        "COMP_CWORD": str(len(words)),
    }
    command = [sys.executable, "-m", "bucket_client.cli"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=15, check=True)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_names_complete_from_the_server_and_silently_not_without_it(stack: Stack) -> None:
    assert complete(stack.url, "run", "cha") == ["chained_test"]
    assert complete(stack.url, "agents", "show", "ech") == ["echo"]
    assert complete(stack.url, "wat") == ["watch"]
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:  # it accepts, and never replies
        assert complete(f"http://127.0.0.1:{mute.getsockname()[1]}", "run", "cha") == []
    assert complete("http://127.0.0.1:9", "run", "cha") == []


def test_a_reader_that_is_gone_ends_the_command_quietly(stack: Stack) -> None:
    with Bucket(stack.url) as client:
        client.run("working_test", {"transactions": []})
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "bucket_client.cli", "--url", stack.url, "list"]
    for options in ([], ["--json"]):
        done = subprocess.run([*command, *options], stdout=write_end, stderr=subprocess.PIPE, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (141, b"")
    os.close(write_end)


@pytest.mark.parametrize("arguments", [["run", "working_test", "--wait"], ["retry", "1_a"]], ids=["run", "retry"])
def test_ctrl_c_in_a_submit_says_how_to_repeat_it_safely(arguments: list[str]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        command = [sys.executable, "-m", "bucket_client.cli", *arguments, "--url", url, "--api-key", "s3cret"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        connection, _ = mute.accept()
        with closing(connection):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
    headers: dict[str, Any] = dict(
        line.lower().split(": ", 1) for line in request.decode().split("\r\n\r\n")[0].split("\r\n")[1:]
    )
    assert process.returncode == 130
    assert err.endswith(f"bucket {' '.join(arguments)} --url {url} --key {headers['idempotency-key']}\n")
    assert "not known whether the run was submitted" in err
    assert "s3cret" not in err


def test_a_server_that_is_away_is_told_while_it_is_tried_again(bucket: BucketCommand, stack: Stack) -> None:
    run_id = bucket("run", "simulate", "-q", "-i", '{"script": ["running:1", "completed"]}')[1].strip()
    stack.kill("api")
    command = [sys.executable, "-m", "bucket_client.cli", "watch", run_id]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    stack.start("api")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["simulated"]) == (0, True)
    assert "does not serve now" in line
    assert "serves again" in err
