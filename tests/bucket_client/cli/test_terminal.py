"""``bucket`` on a real pseudo-terminal: bars, tables, errors, colour, Ctrl-C, and a narrow window."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bucket_client import Bucket
from tests.stack import Stack

AGENTS = Path(__file__).parents[2] / "agents"
COMMAND = [sys.executable, "-m", "bucket_client.cli"]
COLOUR = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")
_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n])")
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes the terminal that of its session, so that Ctrl-C in it is a signal, then becomes the command."""
SHOWN, HIDDEN = "\x1b[?25h", "\x1b[?25l"
SLOW = {"script": ["running:30", "completed"]}


class Terminal:
    """A terminal of a given width and the command that runs in it; what its screen shows, now and before."""

    def __init__(self, *arguments: str, width: int = 100, **environ: str) -> None:
        self._fd, other_end = pty.openpty()
        fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-IS", "-c", _TAKE_TERMINAL, *COMMAND, *arguments],
            stdin=other_end,
            stdout=other_end,
            stderr=other_end,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color"} | environ,
        )
        os.close(other_end)
        self.raw = ""
        self.screens: list[str] = []
        self._unread = ""
        self._lines: list[list[str]] = [[]]
        self._row = self._column = 0

    def wait_for(self, seen: Callable[[str], object], within_s: float = 20.0) -> None:
        """Read until the screen is as wanted; fail after a deadline, or if the command ends before."""
        due_by = time.monotonic() + within_s
        while not seen(self.screen):
            assert time.monotonic() < due_by, f"not seen on:\n{self.screen}"
            assert self._read(), f"it ended with:\n{self.screen}"

    def end(self, within_s: float = 20.0) -> int:
        """Read until the command ends and return its exit code."""
        due_by = time.monotonic() + within_s
        while self._read():
            if time.monotonic() > due_by:
                self._process.kill()
                raise AssertionError(f"it did not end:\n{self.screen}")
        os.close(self._fd)
        return self._process.wait(within_s)

    def press_ctrl_c(self) -> None:
        os.write(self._fd, b"\x03")

    def terminate(self) -> None:
        self._process.terminate()

    @property
    def screen(self) -> str:
        """Return what the screen shows."""
        return "\n".join("".join(line).rstrip() for line in self._lines).strip("\n")

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], 0.2)[0]:
            return True
        try:
            content = os.read(self._fd, 65536)
        except OSError:  # what Linux says once the other end is closed
            return False
        text = content.decode(errors="replace")
        self.raw += text
        self._draw(text)
        return bool(content)

    def _draw(self, text: str) -> None:
        """Draw text as a terminal does that knows what is used here: moves up, and lines that are erased."""
        text, position = self._unread + text, 0
        while (token := _TOKEN.match(text, position)) is not None:
            position = token.end()
            amount, command, control, character = token.groups()
            if command == "A":
                self._row = max(0, self._row - int(amount or 1))
            elif command == "K":
                self._lines[self._row] = []
            elif control == "\r":
                self._column = 0
                self.screens.append(self.screen)
            elif control == "\n":
                self._row += 1
                self._lines += [[] for _ in range(self._row + 1 - len(self._lines))]
            elif character:
                line = self._lines[self._row]
                line.extend(" " * (self._column + 1 - len(line)))
                line[self._column] = character
                self._column += 1
        self._unread = text[position:]


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_AGENTS_DIR=str(AGENTS))


@pytest.fixture(autouse=True)
def _address(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET_URL", stack.url)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


def in_a_pipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("width", [100, 40])
def test_a_wait_draws_a_bar_that_is_gone_at_the_end(width: int) -> None:
    script = json.dumps({"script": ["queued:0.3", "running:1.5@90", "completed"]})
    terminal = Terminal("run", "simulate", "--wait", "-i", script, width=width)
    assert terminal.end() == 0
    bars = [screen for screen in terminal.screens if "%" in screen]
    assert any("queued" in bar for bar in bars)
    assert any(re.search(r"simulate .*━.* [1-9][0-9]% +\d+ s", bar) for bar in bars)
    assert any("about" in bar and "left" in bar for bar in bars) == (width == 100)
    assert all(len(line) <= width for bar in bars for line in bar.splitlines())
    first, _, result = terminal.screen.partition("{")
    assert "completed in" in first
    assert json.loads("{" + result)["simulated"] is True
    assert "%" not in terminal.screen
    assert terminal.raw.rindex(SHOWN) > terminal.raw.rindex(HIDDEN)


def test_in_a_pipe_there_is_no_bar_no_colour_and_no_control_code() -> None:
    done = in_a_pipe("run", "simulate", "--wait", "-i", '{"script": ["running:0.3@50", "completed"]}')
    assert (done.returncode, json.loads(done.stdout)["simulated"]) == (0, True)
    assert "\x1b" not in done.stdout + done.stderr
    assert "%" not in done.stderr


@pytest.mark.parametrize("option", ["-q", "--json"])
def test_on_a_terminal_too_a_bar_is_only_for_a_person(option: str) -> None:
    terminal = Terminal("run", "simulate", "--wait", option, "-i", '{"script": ["running:0.3@50", "completed"]}')
    assert terminal.end() == 0
    assert json.loads(terminal.screen)
    assert HIDDEN not in terminal.raw


def test_a_failed_run_is_an_error_with_its_log_on_a_narrow_terminal_too() -> None:
    terminal = Terminal("run", "simulate", "--wait", "-i", '{"script": ["running:0.1", "failed:no_luck"]}', width=40)
    assert terminal.end() == 1
    assert terminal.screen.startswith("error: ")
    assert "in step simulate: no_luck:" in terminal.screen
    assert "simulate started" in terminal.screen
    assert COLOUR.search(terminal.raw)


def test_ctrl_c_leaves_the_run_going_and_says_how_to_come_back(stack: Stack) -> None:
    terminal = Terminal("run", "simulate", "--wait", "-i", json.dumps(SLOW))
    terminal.wait_for(lambda screen: "simulate" in screen)
    terminal.press_ctrl_c()
    assert terminal.end() == 130
    found = re.search(r"(\S+) goes on; to come back: bucket watch (\S+)", terminal.screen)
    assert found is not None
    assert found[1] == found[2]
    assert "%" not in terminal.screen
    assert terminal.raw.rindex(SHOWN) > terminal.raw.rindex(HIDDEN)
    with Bucket(stack.url) as bucket:
        assert bucket.poll(found[1]).status == "running"
        bucket.cancel(found[1])


def test_several_runs_have_a_bar_each_and_ctrl_c_does_not_wait_for_their_polls(stack: Stack) -> None:
    with Bucket(stack.url) as bucket:
        quick = bucket.run("simulate", {"script": ["completed"]}).execution_id
        slow = bucket.run("simulate", SLOW).execution_id
        for width in (100, 40):
            terminal = Terminal("watch", quick, slow, width=width)
            terminal.wait_for(
                lambda screen: re.search(rf"{quick}.* 100%", screen) and re.search(rf"{slow}.* 0%", screen)
            )
            assert all(len(line) <= width for line in terminal.screen.splitlines())
            terminal.press_ctrl_c()
            assert terminal.end() == 130
            assert terminal.screen == f"the runs go on; to come back: bucket watch {quick} {slow}"
        bucket.cancel(slow)
        terminal = Terminal("watch", quick, slow)
        assert terminal.end() == 1
    assert [line.split()[1] for line in terminal.screen.splitlines()[1:]] == ["completed", "cancelled"]


def test_sigterm_gives_the_cursor_back(stack: Stack) -> None:
    terminal = Terminal("run", "simulate", "--wait", "-i", json.dumps(SLOW))
    terminal.wait_for(lambda screen: "simulate" in screen)
    terminal.terminate()
    assert terminal.end() == 128 + signal.SIGTERM
    assert terminal.raw.rindex(SHOWN) > terminal.raw.rindex(HIDDEN)
    with Bucket(stack.url) as bucket:
        [running] = bucket.executions(status="running")
        bucket.cancel(running.execution_id)


def test_a_table_fits_the_terminal_and_is_whole_in_a_pipe(stack: Stack) -> None:
    with Bucket(stack.url) as bucket:
        execution_id = bucket.run_and_wait("working_test", {"transactions": []}).execution_id
    wide, narrow = Terminal("list", "--limit", "1"), Terminal("list", "--limit", "1", width=40)
    assert (wide.end(), narrow.end()) == (0, 0)
    assert wide.screen.splitlines()[0].split() == ["id", "status", "%", "basket", "created", "took"]
    assert [line.split() for line in narrow.screen.splitlines()[:2]] == [["id", "status"], [execution_id, "completed"]]
    whole = in_a_pipe("list", "--limit", "1").stdout.splitlines()[1].split()
    assert (whole[0], whole[1], whole[3]) == (execution_id, "completed", "working_test")
    narrow = Terminal("baskets", width=40)
    assert narrow.end() == 0
    assert all(len(line) <= 40 for line in narrow.screen.splitlines())


def test_colour_is_on_a_terminal_only_and_can_be_switched_off(stack: Stack) -> None:
    with Bucket(stack.url) as bucket:
        bucket.run_and_wait("working_test", {"transactions": []})
    coloured = Terminal("list", "--status", "completed", "--limit", "1")
    options: list[tuple[list[str], dict[str, str]]] = [
        (["--no-color"], {}),
        ([], {"NO_COLOR": "1"}),
        ([], {"TERM": "dumb"}),
    ]
    plain = [Terminal("list", *more, "--status", "completed", "--limit", "1", **environ) for more, environ in options]
    assert [terminal.end() for terminal in (coloured, *plain)] == [0, 0, 0, 0]
    assert COLOUR.search(coloured.raw)
    for terminal in plain:
        assert not COLOUR.search(terminal.raw)
        assert "completed" in terminal.screen


def test_nothing_of_the_server_reaches_the_terminal_raw(stack: Stack) -> None:
    """A title that is set, a colour, and markup of rich: in a description, in an error and in a log."""
    text = "\x1b]0;owned\x07\x9b31m[bold]text[/bold]"
    printed = r"\x1b]0;owned\x07\x9b31m[bold]text[/bold]"
    with Bucket(stack.url) as bucket:
        bucket.create_basket("hostile", agents=["raiser"], description=text)
        run = bucket.run("hostile", {"kind": "PermanentError", "message": text})
    commands = (["baskets"], ["watch", run.execution_id], ["logs", run.execution_id], ["show", run.execution_id])
    terminals = [Terminal(*command, width=200) for command in commands]
    for command, terminal in zip(commands, terminals, strict=True):
        assert terminal.end() == (1 if command[0] == "watch" else 0)
        assert printed in terminal.screen.replace("\n", ""), command
        assert "\x1b]" not in terminal.raw
        assert "\x9b" not in terminal.raw
        assert "\x07" not in terminal.raw


def test_a_map_draws_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("[1]\n" + '{"script": ["running:0.1", "completed"]}\n' * 8)
    files = [str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]
    terminal = Terminal("map", "simulate", *files, "--concurrency", "2")
    assert terminal.end() == 1
    assert any(re.search(r"━ +[1-8]/9 1 failed .*/s", screen) for screen in terminal.screens)
    assert terminal.screen.startswith("8 of 9 lines completed; the results are in ")
