"""``bucket map`` against a real stack: killed at any point, each line is in the results once, and each ran once."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bucket_client import Bucket
from bucket_client.cli import commands
from tests.stack import Stack
from tests.waiting import wait_until

AGENTS = Path(__file__).parents[2] / "agents"
COUNT = 120
BucketMap = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack(BUCKET_AGENTS_DIR=str(AGENTS))
    with Bucket(stack.url) as bucket:
        bucket.create_basket("counted", agents=["counter"])
        bucket.create_basket("echoed", agents=["echo"])
    return stack


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: Stack) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUCKET_URL", stack.url)
    return tmp_path


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bucket_client.cli", "map", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def bucket_map(capsys: pytest.CaptureFixture[str]) -> Iterator[BucketMap]:
    """Yield a function that runs ``bucket map`` in this process and returns its exit code and what it printed."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = commands.run(["map", *arguments])
        return code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, before)


def count_of(stack: Stack) -> int:
    return stack.mongo()["executions"].count_documents({})


def results_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_inputs(path: Path, count: int, **more: Any) -> None:
    path.write_text("".join(json.dumps({"number": number} | more) + "\n" for number in range(1, count + 1)))


def whole_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("kill_after", [[0, 1], [20, 21, 60, 90]], ids=str)
def test_a_map_that_is_killed_goes_on_and_each_line_is_there_once(
    bucket_map: BucketMap, stack: Stack, folder: Path, kill_after: list[int]
) -> None:
    """It is killed once it has written so many lines, also right after its first submit (0), then runs to its end."""
    counted = folder / "counted"
    write_inputs(folder / "in.jsonl", COUNT, file=str(counted), seconds=0.01)
    before = count_of(stack)
    arguments = ["counted", "in.jsonl", "-o", "out.jsonl", "--concurrency", "40"]
    for lines in kill_after:
        process = start(*arguments)
        wait_until(
            lambda due=lines: whole_lines(folder / "out.jsonl") >= due and count_of(stack) > before,
            30,
            f"{lines} lines",
        )
        process.kill()
        process.communicate()
    code, _, err = bucket_map(*arguments)
    assert (code, err.endswith(f"{COUNT} of {COUNT} lines completed; the results are in out.jsonl\n")) == (0, True)
    results = results_in(folder / "out.jsonl")
    assert sorted(result["line"] for result in results) == list(range(1, COUNT + 1))
    assert all(result["result"]["number"] == result["line"] for result in results)
    assert count_of(stack) - before == COUNT
    runs = Counter(line.split(":")[0] for line in counted.read_text().split())
    assert runs == dict.fromkeys((result["execution_id"] for result in results), 1)


def test_the_same_command_again_says_that_all_is_done_and_does_nothing(
    bucket_map: BucketMap, stack: Stack, folder: Path
) -> None:
    (folder / "in.jsonl").write_text('{"n": 1}\n\n[2]\n{"secret": 1}\n')
    arguments = ["echoed", "in.jsonl", "-o", "out.jsonl"]
    code, _, err = bucket_map(*arguments)
    assert (code, err) == (1, "1 of 3 lines completed; the results are in out.jsonl\n")
    results = {result["line"]: result for result in results_in(folder / "out.jsonl")}
    assert {line: result["status"] for line, result in results.items()} == {1: "completed", 3: "invalid", 4: "refused"}
    assert results[1]["result"] == {"n": 1}
    assert "must be a JSON object" in results[3]["error"]["message"]
    assert results[4]["error"]["error_code"] == "credentials_not_accepted"
    assert all(set(result) == {"line", "execution_id", "status", "result", "error"} for result in results.values())
    before, content = count_of(stack), (folder / "out.jsonl").read_bytes()
    code, out, _ = bucket_map(*arguments, "--json")
    counts = {"total": 3, "completed": 1, "not_completed": 2, "before": 3, "output": "out.jsonl"}
    assert (code, json.loads(out)) == (1, counts)
    assert bucket_map(*arguments)[2].startswith("everything was done before: 1 of 3 lines")
    assert (count_of(stack), (folder / "out.jsonl").read_bytes()) == (before, content)


def test_a_result_that_comes_again_after_a_kill_is_not_written_twice(
    bucket_map: BucketMap, stack: Stack, folder: Path
) -> None:
    """The kill came after the line was written and before the state file said so."""
    write_inputs(folder / "in.jsonl", 5)
    arguments = ["echoed", "in.jsonl", "-o", "out.jsonl"]
    assert bucket_map(*arguments)[0] == 0
    content, before = (folder / "out.jsonl").read_bytes(), count_of(stack)
    state = (folder / "out.jsonl.state").read_text().splitlines(keepends=True)
    assert "returned" in state[-1]
    (folder / "out.jsonl.state").write_text("".join(state[:-1]))
    assert bucket_map(*arguments)[0] == 0
    assert ((folder / "out.jsonl").read_bytes(), count_of(stack)) == (content, before)


def test_a_line_that_a_kill_has_torn_is_written_anew(bucket_map: BucketMap, stack: Stack, folder: Path) -> None:
    write_inputs(folder / "in.jsonl", 5)
    arguments = ["echoed", "in.jsonl", "-o", "out.jsonl"]
    assert bucket_map(*arguments)[0] == 0
    content, before = (folder / "out.jsonl").read_bytes(), count_of(stack)
    (folder / "out.jsonl").write_bytes(content[:-9])
    state = (folder / "out.jsonl.state").read_text().splitlines(keepends=True)
    (folder / "out.jsonl.state").write_text("".join(state[:-1]))
    assert bucket_map(*arguments)[0] == 0
    assert ((folder / "out.jsonl").read_bytes(), count_of(stack)) == (content, before)


def test_results_that_were_taken_away_are_missed(bucket_map: BucketMap, folder: Path) -> None:
    write_inputs(folder / "in.jsonl", 3)
    arguments = ["echoed", "in.jsonl", "-o", "out.jsonl"]
    assert bucket_map(*arguments)[0] == 0
    lines = (folder / "out.jsonl").read_text().splitlines(keepends=True)
    (folder / "out.jsonl").write_text("".join(lines[1:]))
    code, _, err = bucket_map(*arguments)
    assert (code, "1 results are missing in out.jsonl" in err) == (2, True)
    (folder / "out.jsonl").unlink()
    code, _, err = bucket_map(*arguments)
    assert (code, "its results are gone" in err) == (2, True)
    assert bucket_map(*arguments, "--overwrite")[0] == 0
    assert len(results_in(folder / "out.jsonl")) == 3


def test_a_file_that_is_not_of_this_map_is_not_touched(bucket_map: BucketMap, stack: Stack, folder: Path) -> None:
    write_inputs(folder / "in.jsonl", 1)
    before = count_of(stack)
    (folder / "out.jsonl").write_text("a letter")
    code, _, err = bucket_map("echoed", "in.jsonl", "-o", "out.jsonl")
    assert (code, "--overwrite" in err) == (2, True)
    (folder / "out.jsonl.state").touch()  # a state file alone does not make it ours
    assert bucket_map("echoed", "in.jsonl", "-o", "out.jsonl")[0] == 2
    assert (folder / "out.jsonl").read_text() == "a letter"
    for wrong in (["-o", "in.jsonl"], ["-o", "out.txt"], ["-o", "b.jsonl", "--state", "in.jsonl", "--overwrite"]):
        assert bucket_map("echoed", "in.jsonl", *wrong)[0] == 2
    assert len((folder / "in.jsonl").read_text().splitlines()) == 1
    assert count_of(stack) == before
    assert bucket_map("echoed", "in.jsonl", "-o", "out.jsonl", "--overwrite")[0] == 0


def test_a_second_map_on_the_same_files_is_refused_and_ctrl_c_says_how_to_go_on(
    bucket_map: BucketMap, folder: Path
) -> None:
    write_inputs(folder / "in.jsonl", 4, seconds=0.2)
    arguments = ["counted", "in.jsonl", "-o", "out.jsonl", "--concurrency", "1"]
    first = start(*arguments)
    wait_until(lambda: whole_lines(folder / "out.jsonl") >= 1, 30, "a line")
    for more in ([], ["--overwrite"]):
        code, _, err = bucket_map(*arguments, *more)
        assert (code, "another map uses out.jsonl.state" in err) == (2, True)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=20)
    assert (first.returncode, "the same command goes on where it stopped" in err) == (130, True)
    assert bucket_map(*arguments)[0] == 0
    assert sorted(result["line"] for result in results_in(folder / "out.jsonl")) == [1, 2, 3, 4]


def test_lines_may_be_added_to_the_inputs_and_none_may_change(
    bucket_map: BucketMap, stack: Stack, folder: Path
) -> None:
    write_inputs(folder / "in.jsonl", 2)
    arguments = ["echoed", "in.jsonl", "-o", "out.jsonl"]
    assert bucket_map(*arguments)[0] == 0
    write_inputs(folder / "in.jsonl", 3)
    assert bucket_map(*arguments)[2] == "3 of 3 lines completed; the results are in out.jsonl\n"
    before, content = count_of(stack), (folder / "out.jsonl").read_bytes()
    write_inputs(folder / "in.jsonl", 3, other=True)
    code, _, err = bucket_map(*arguments)
    assert (code, "out.jsonl.state" in err) == (2, True)
    assert bucket_map(*arguments, "--tag", "another")[0] == 2
    assert (count_of(stack), (folder / "out.jsonl").read_bytes()) == (before, content)


def test_csv_in_and_out(bucket_map: BucketMap, folder: Path) -> None:
    (folder / "in.csv").write_text('id,n,note\n007,1.5,"two\nlines"\n8,"[1]",x\nshort\n')
    assert bucket_map("echoed", "in.csv", "-o", "out.csv", "--state", "my.state", "--tag", "csv")[0] == 1
    with (folder / "out.csv").open(newline="") as file:
        rows = {int(row["line"]): row for row in csv.DictReader(file)}
    assert json.loads(rows[2]["result"]) == {"id": "007", "n": 1.5, "note": "two\nlines"}
    assert json.loads(rows[4]["result"]) == {"id": 8, "n": [1], "note": "x"}
    assert (rows[5]["status"], rows[5]["execution_id"], rows[5]["result"]) == ("invalid", "", "")
    assert (folder / "my.state").exists()
    assert not (folder / "out.csv.state").exists()


def test_a_dry_run_counts_and_shows_the_first_item_and_makes_no_file(
    bucket_map: BucketMap, stack: Stack, folder: Path
) -> None:
    (folder / "in.jsonl").write_text('[1]\n{"n": 2}\n')
    before = count_of(stack)
    code, out, _ = bucket_map("echoed", "in.jsonl", "-o", "out.jsonl", "--dry-run", "--tag", "t")
    found = json.loads(out)
    assert (code, found["lines"], found["invalid"], found["done_before"]) == (0, 2, 1, 0)
    assert found["first_item"] == {"basket_name": "echoed", "input_data": {"n": 2}, "tags": ["t"]}
    assert count_of(stack) == before
    assert [path.name for path in folder.iterdir()] == ["in.jsonl"]


def test_a_basket_that_is_not_there_is_refused_once_and_the_right_one_goes_on(
    bucket_map: BucketMap, folder: Path
) -> None:
    write_inputs(folder / "in.jsonl", 2, transactions=[])
    code, _, errors = bucket_map("workin_test", "in.jsonl", "-o", "out.jsonl")
    assert code == 4
    assert "was not found" in errors
    assert bucket_map("working_test", "in.jsonl", "-o", "out.jsonl")[0] == 0
    assert [result["status"] for result in results_in(folder / "out.jsonl")] == ["completed"] * 2
