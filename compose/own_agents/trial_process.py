"""Runs one attempt of an agent in a process of its own, with a time limit; nothing that it starts is left running.

The process that calls this must have no threads, because it forks.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from compose.own_agents.trial_context import make_context
from shared.errors import BucketError, SpecError
from worker.context import AgentContext
from worker.steps.failures.agent_traceback import format_agent_traceback
from worker.steps.outcome_checks import error_of_exception
from worker.supervision import child_processes
from worker.testing.agent_trial import AgentTrial, TrialFailed, load_agent

_KILL_AFTER_S: Final = 2.0
_READ_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class TrialJob:
    """One attempt: the agent's folder, its input (None only loads the agent), and what differs from a worker."""

    folder: str
    given: Any
    timeout_s: float
    settings: Mapping[str, str]
    state_file: str | None = None
    is_quiet: bool = False
    """Whether what the agent logs and prints goes nowhere, and not to stderr."""


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """How it ended: with an output, or with an error as a poll has it, and the agent's own traceback.

    ``error_code`` is ``agent_unavailable`` if the agent could not be loaded.
    """

    output: dict[str, Any] | None = None
    error_code: str = ""
    message: str = ""
    kind: str = ""
    traceback: str = ""


class _TimeIsUp(BaseException):
    """The time limit is over; raised in the agent by a signal."""


def run_trial(job: TrialJob) -> TrialOutcome:
    """Run one attempt in a forked process, and kill what is left of it."""
    child_processes.become_subreaper()
    reading, writing = os.pipe()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _run_in_child(job, writing)
    os.close(writing)
    try:
        text = _read_until_closed(reading, pid, job.timeout_s + _KILL_AFTER_S)
    finally:
        os.close(reading)
        if child_processes.has_children():
            child_processes.end_children()
    if text:
        return TrialOutcome(**json.loads(text))
    return TrialOutcome(error_code="worker_lost", message="the agent ended its process", kind="lost")


def _read_until_closed(reading: int, pid: int, within_s: float) -> bytes:
    """Return what the child wrote; kill it if it takes too long. A process that it left may hold the pipe open."""
    chunks = bytearray()
    while True:
        ready, _, _ = select.select([reading], [], [], within_s)
        if not ready:
            child_processes.kill_tree(pid)
            return bytes(chunks) or json.dumps(asdict(_timeout_outcome(within_s - _KILL_AFTER_S, ""))).encode()
        chunk = os.read(reading, _READ_BYTES)
        chunks += chunk
        if not chunk or chunk.endswith(b"\n"):
            return bytes(chunks)


def _run_in_child(job: TrialJob, writing: int) -> NoReturn:
    """Run the attempt and write its outcome as one line; the process ends here, whatever threads are left."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # those of the process that forked this one
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if job.is_quiet:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.dup2(2, 1)  # what the agent prints is no part of its output
    outcome = _attempt(job)
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    line = json.dumps(asdict(outcome)).encode() + b"\n"
    while line:
        line = line[os.write(writing, line) :]
    os._exit(0)


def _attempt(job: TrialJob) -> TrialOutcome:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TimeIsUp

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, job.timeout_s)
    try:
        trial = load_agent(Path(job.folder))
    except (SpecError, _TimeIsUp) as raised:
        reason = raised.message if isinstance(raised, SpecError) else f"it did not load within {job.timeout_s:g} s"
        return TrialOutcome(error_code="agent_unavailable", message=reason)
    if job.given is None:
        return TrialOutcome(output={})
    try:
        trial.check_input(job.given)
        returned = trial.agent.run(job.given, _context_of(job, trial))
        signal.setitimer(signal.ITIMER_REAL, 0)
        return TrialOutcome(output=trial.check_returned(returned))
    except TrialFailed as failed:
        return TrialOutcome(error_code=failed.error_code, message=failed.error.message, kind=str(failed.error.kind))
    except BaseException as raised:  # noqa: BLE001 - whatever an agent raises is its failure
        signal.setitimer(signal.ITIMER_REAL, 0)
        return _outcome_of_exception(job, trial, raised)


def _outcome_of_exception(job: TrialJob, trial: AgentTrial, raised: BaseException) -> TrialOutcome:
    if isinstance(raised, SpecError):
        return TrialOutcome(error_code="agent_unavailable", message=raised.message)
    text = format_agent_traceback(raised, Path(job.folder), {})
    if isinstance(raised, _TimeIsUp):
        return _timeout_outcome(job.timeout_s, text)
    error = error_of_exception(trial.step, raised)
    return TrialOutcome(error_code=error.error_code, message=error.message, kind=str(error.kind), traceback=text)


def _context_of(job: TrialJob, trial: AgentTrial) -> AgentContext:
    try:
        return make_context(trial.agent.spec, job.timeout_s, job.settings, job.state_file)
    except BucketError as error:
        raise SpecError(error.message) from error


def _timeout_outcome(timeout_s: float, text: str) -> TrialOutcome:
    return TrialOutcome(
        error_code="timeout", message=f"it took longer than {timeout_s:g} s", kind="timeout", traceback=text
    )
