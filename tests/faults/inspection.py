"""Inspection of the state after a fault: the stored run, its log lines and the waiting messages."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from contextlib import suppress
from os import kill
from typing import Any

from shared.domain.definitions.agent_spec import QUEUE_NAMES
from shared.queue.message import list_keys
from tests.api_client import RunClient
from tests.stack import Stack
from tests.waiting import descendants


def stored_run(stack: Stack, execution_id: str) -> dict[str, Any]:
    """Return the document of a run."""
    document = stack.mongo().executions.find_one({"_id": execution_id})
    assert document is not None
    return document


def steps_with_event(poll: dict[str, Any], event: str) -> list[str]:
    """Return the steps of the log lines of a run with this event."""
    return [line["step"] for line in poll["logs"] if line["event"] == event]


def count_messages(stack: Stack) -> int:
    """Return the number of messages that wait in all lists."""
    client = stack.redis()
    return sum(int(client.llen(name)) for queue in QUEUE_NAMES for name in list_keys(queue))


def restart_with(stack: Stack, name: str, **settings: str) -> None:
    """Stop a process and start it with other settings, this once."""
    stack.stop(name)
    stack.start(name, **settings)


def worker_pids(stack: Stack) -> set[int]:
    """Return the process ids of the worker's main process and its children."""
    return {stack.pid("worker"), *descendants(stack.pid("worker"))}


def kill_children(stack: Stack) -> None:
    """Kill the children of a worker, but not its main process (SIGKILL)."""
    for child in descendants(stack.pid("worker")):
        with suppress(ProcessLookupError):
            kill(child, signal.SIGKILL)


def assert_completed_once(runs: RunClient, ids: Iterable[str], within_s: float = 40.0) -> None:
    """Check that these runs of the counter completed and each step was recorded and run once."""
    run_ids = sorted(ids)
    assert {poll["status"] for poll in runs.wait_all_done(run_ids, within_s)} == {"completed"}
    assert sorted(line.split(":")[0] for line in runs.counter_lines() if line.split(":")[0] in set(run_ids)) == run_ids
