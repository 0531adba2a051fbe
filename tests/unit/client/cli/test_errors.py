"""Errors of the command line: every error has an exit code, and no key is ever printed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import bucket_client
from bucket_client import BucketError, Execution, ExecutionCancelled, ExecutionFailed
from bucket_client.cli import commands
from bucket_client.cli.error_report import _BY_ERROR, EXIT_CODES, report
from bucket_client.cli.session import Session

EXPECTED = {
    "ExecutionFailed": 1,
    "ExecutionCancelled": 1,
    "StateFileError": 2,
    "Unavailable": 3,
    "RateLimited": 3,
    "Overloaded": 3,
    "ServerFault": 3,
    "NotFound": 4,
    "Invalid": 4,
    "Conflict": 4,
    "Forbidden": 4,
    "Timeout": 5,
}


def error_of(kind: type[BucketError]) -> BucketError:
    if issubclass(kind, ExecutionFailed):
        status = "cancelled" if kind is ExecutionCancelled else "failed"
        return kind(Execution.from_json({"execution_id": "1_a", "status": status, "done": True, "rev": 3}))
    return kind("it went wrong")


@pytest.mark.parametrize(
    "name", [name for name in dir(bucket_client) if isinstance(getattr(bucket_client, name), type)]
)
def test_every_error_of_the_client_has_its_exit_code(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind = getattr(bucket_client, name)
    if issubclass(kind, BucketError) and kind is not BucketError:
        assert report(error_of(kind), Session()) == EXPECTED[name]
        assert capsys.readouterr().err.startswith("error: ")


def test_the_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(["--help"]) == 0
    printed = capsys.readouterr().out
    assert {code for _, code, _ in _BY_ERROR} | {0} == {code for code, _ in EXIT_CODES}
    for code, meaning in EXIT_CODES:
        assert f"{code:>3}  {meaning}" in printed


def test_an_error_for_a_program_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    error = bucket_client.Invalid("no", status=400, error_code="x", details=[{"pointer": "/a"}], request_id="r")
    error.add_note("do this")
    report(error, Session(json=True))
    assert json.loads(capsys.readouterr().err) == {
        "error_code": "x",
        "message": "no",
        "status": 400,
        "request_id": "r",
        "pointers": ["/a"],
        "hints": ["do this"],
    }


@pytest.mark.parametrize(
    "arguments", [["--json", "lst"], ["run", "--json", "--nope"], ["run", "x", "-i", "nope", "--json"]]
)
def test_a_wrong_command_line_is_an_object_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(arguments) == 2
    printed = capsys.readouterr()
    assert (json.loads(printed.err)["error_code"], printed.out) == ("usage", "")


def test_the_line_to_repeat_has_the_idempotency_key_and_never_the_key_of_the_caller() -> None:
    session = Session(
        ("--api-key", "s3cret", "run", "--api-key=s3cret", "x y", "--wait"), url="http://a", api_key="s3cret"
    )
    assert session.line_again("k") == "bucket run 'x y' --wait --key k"
    assert Session(("run", "x", "--key=mine")).line_again("mine") == "bucket run x --key=mine"
    assert session.line_of("watch", "1_a") == "bucket --url http://a watch 1_a"


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_config_says_where_settings_come_from_and_masks_the_key(
    as_json: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKET_API_KEY", "s3cret")
    assert commands.run(["config", "--url", "http://elsewhere", *as_json]) == 0
    printed = capsys.readouterr().out
    assert "s3cret" not in printed
    assert all(word in printed for word in ("http://elsewhere", "--url", "********", "BUCKET_API_KEY"))


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_how_to_install_it(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from bucket_client.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: the command bucket needs {missing}: pip install 'bucket-client[cli]'\n"


def test_help_loads_no_rich() -> None:
    program = (
        "import sys; from bucket_client.cli import commands; commands.run(['--help']); sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=30).returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(["completion", shell]) == 0
    assert f"_BUCKET_COMPLETE={shell}_complete" in capsys.readouterr().out
