"""The programs of the guides while the API restarts under them, before a hostile proxy, and with items refused."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs.hostile_proxy import HostileProxy
from tests.docs.programs import BLOCK, PROGRAMS, ROOT, Program
from tests.stack import Stack
from tests.waiting import wait_until

DOWN_S = 2.0
WITHIN_S = 30.0
# A run of some five seconds, polled by its hints. A loop without a pause sends thousands.
REQUESTS_MAX = 40
# The examples of baskets are one request, which is held: if the API stops meanwhile, its reply is the 202.
LOOPS = [program for program in PROGRAMS if program.name not in {"docs/baskets.md-sh-1", "docs/catalogue.md-sh-1"}]
COMMANDS = [
    text
    for page in ("README.md", "docs/baskets.md", "docs/catalogue.md")
    for kind, text in BLOCK.findall((ROOT / page).read_text("utf-8"))
    if kind == "sh" and "curl" in text and "/ID" not in text
]


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(BUCKET_BACKLOG_MAX="12", BUCKET_LEASE_S="10")


@pytest.fixture(autouse=True)
def repaired(stack: Stack) -> Iterator[None]:
    yield
    stack.repair()


def count_runs(stack: Stack) -> int:
    return stack.mongo().executions.count_documents({})


def test_each_program_survives_a_restart_of_the_api_and_runs_nothing_twice(stack: Stack, tmp_path: Path) -> None:
    before = count_runs(stack)
    loops = [loop for loop in LOOPS if loop.runs == 1]
    stack.pause("worker")  # so that no run ends before the second restart
    stack.stop("api")
    started = start_all(loops, tmp_path, lambda _: stack.url, "restart")
    time.sleep(DOWN_S)
    stack.start("api")
    wait_until(lambda: count_runs(stack) == before + len(loops), WITHIN_S, "each program has submitted its run")
    stack.stop("api")
    time.sleep(DOWN_S)
    stack.start("api")
    stack.resume("worker")
    for program, process in started.items():
        program.check(process, WITHIN_S)
    assert count_runs(stack) == before + len(loops)


def start_all(
    programs: list[Program], directory: Path, url_of: Callable[[Program], str], key: str
) -> dict[Program, subprocess.Popen[str]]:
    return {
        program: program.start(directory / re.sub(r"\W", "-", program.name), url_of(program), key=key)
        for program in programs
    }


def test_a_batch_survives_a_restart_and_sends_the_refused_items_again(stack: Stack, tmp_path: Path) -> None:
    """The backlog has room for 12 of the 20 items, so the others are 503 until the worker has taken some."""
    before = count_runs(stack)
    (program,) = [loop for loop in LOOPS if loop.runs == 20]
    stack.pause("worker")
    process = program.start(tmp_path, stack.url, key="refused")
    wait_until(lambda: count_runs(stack) == before + 12, WITHIN_S, "the items were stored for which there is room")
    stack.stop("api")
    time.sleep(DOWN_S)
    stack.start("api")
    stack.resume("worker")
    program.check(process, WITHIN_S)
    assert count_runs(stack) == before + 20


def test_each_program_obeys_retry_after_and_never_spins(stack: Stack, tmp_path: Path) -> None:
    loops = [loop for loop in LOOPS if loop.runs == 1]
    before = count_runs(stack)
    stack.pause("worker")
    with ExitStack() as proxies:
        proxy_of = {loop: proxies.enter_context(HostileProxy(stack.url)) for loop in loops}
        started = start_all(loops, tmp_path, lambda loop: proxy_of[loop].url, "proxy")
        wait_until(lambda: count_runs(stack) == before + len(loops), WITHIN_S, "each program has submitted its run")
        time.sleep(2 * DOWN_S)
        stack.resume("worker")
        for program, process in started.items():
            program.check(process, WITHIN_S)
        for program, proxy in proxy_of.items():
            assert not proxy.early_repeats(), program.name
            assert len(proxy.requests) <= REQUESTS_MAX, program.name


def test_each_command_waits_for_an_api_that_restarts(stack: Stack) -> None:
    assert len(COMMANDS) == 3
    stack.stop("api")
    started = []
    for command in COMMANDS:
        text = command.replace("http://", "").replace("localhost:8000", stack.url)
        assert text != command
        started.append(subprocess.Popen(["sh", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    time.sleep(DOWN_S)
    stack.start("api")
    for process in started:
        output, errors = process.communicate(timeout=WITHIN_S)
        assert process.returncode == 0, errors
        assert '"execution_id"' in output
