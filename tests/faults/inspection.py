"""Looks at what a fault left behind: the stored run, its lines, the messages that wait."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from contextlib import suppress
from os import kill
from typing import Any

from shared.queue.message import QUEUES, list_keys
from tests.api_client import Runs
from tests.stack import Stack
from tests.waiting import descendants


def stored(stack: Stack, execution_id: str) -> dict[str, Any]:
    """Answer a run's document."""
    found = stack.mongo().executions.find_one({"_id": execution_id})
    assert found is not None
    return found


def lines_of(poll: dict[str, Any], event: str) -> list[str]:
    """Answer the steps that a run's lines of one event are about."""
    return [line["step"] for line in poll["logs"] if line["event"] == event]


def messages(stack: Stack) -> int:
    """Answer how many messages wait in all lists."""
    client = stack.redis()
    return sum(int(client.llen(name)) for queue in QUEUES for name in list_keys(queue))


def restart_with(stack: Stack, name: str, **settings: str) -> None:
    """Stop a process and start it with other settings, this once."""
    stack.stop(name)
    stack.start(name, **settings)


def workers(stack: Stack) -> set[int]:
    """Answer the worker's main process and its children."""
    return {stack.pid("worker"), *descendants(stack.pid("worker"))}


def kill_children(stack: Stack) -> None:
    """End a worker's children, and not its main process (SIGKILL)."""
    for child in descendants(stack.pid("worker")):
        with suppress(ProcessLookupError):
            kill(child, signal.SIGKILL)


def all_completed_once(runs: Runs, ids: Iterable[str], within_s: float = 40.0) -> None:
    """See that runs of the counter completed, each step recorded and run once."""
    wanted = sorted(ids)
    assert {poll["status"] for poll in runs.all_done(wanted, within_s)} == {"completed"}
    assert sorted(line.split(":")[0] for line in runs.counted() if line.split(":")[0] in set(wanted)) == wanted
